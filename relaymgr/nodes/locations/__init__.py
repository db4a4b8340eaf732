"""Where nodes are, and which of their addresses a caller can use."""
