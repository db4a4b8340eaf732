"""No tables. But only an app with this module is told when migrations are done, which is when the roles are made."""
