"""The wire formats that a player may use. Each dialect has a module that reads datagrams and one with its binding."""
