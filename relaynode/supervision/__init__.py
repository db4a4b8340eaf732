"""The node's processes: workers, the channel to them, and the state that survives them."""
