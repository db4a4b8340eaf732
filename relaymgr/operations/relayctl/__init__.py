"""The command line for operators: a module for each concern, put together in `app`."""
