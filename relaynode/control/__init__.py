"""Communication with the manager: the control API, heartbeats and pulls, probes of other nodes, metrics."""
