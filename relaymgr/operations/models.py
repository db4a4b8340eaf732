"""No tables. The module exists because only apps with models receive post_migrate, which creates the roles."""
