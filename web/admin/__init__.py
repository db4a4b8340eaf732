"""The base of the console, shared by all applications."""
