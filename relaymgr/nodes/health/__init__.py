"""What the manager knows about the condition of nodes: silence and incidents."""
