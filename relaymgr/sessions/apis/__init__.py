"""The HTTP views of sessions, and what only they use."""
