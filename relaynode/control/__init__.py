"""Between the node and the manager: the control API, the pulls and heartbeats, probes of other nodes, metrics."""
