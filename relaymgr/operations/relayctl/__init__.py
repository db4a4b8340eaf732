"""The command line for operators. `app` collects the commands, each of which is a module in `commands`."""
