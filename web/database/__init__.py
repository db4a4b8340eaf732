"""The database below Django's models: connections with deadlines, bulk SQL, encrypted columns."""
