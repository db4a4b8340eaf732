"""Reading settings from the environment, for every process. A leaf: it imports nothing of ours, and no Django."""
