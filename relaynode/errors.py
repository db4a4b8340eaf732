"""What stops a node or one of its calls. Refusals of a grant are the core's own, in grants.py."""


class NodeError(Exception):
    """Base of all. `exit_status` is what the process ends with when nothing else deals with it."""

    exit_status = 1


class ConfigError(NodeError):
    """A setting is missing or makes no sense."""

    exit_status = 2

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable} {reason}")


class PortUnavailable(NodeError):
    """A port of ours belongs to another process, or to an address that this machine does not have."""

    exit_status = 3

    def __init__(self, kind: str, address: str, port: int, reason: str) -> None:
        super().__init__(f"{kind} port {port} on {address or 'all addresses'} cannot be served: {reason}")


class JoinRefused(NodeError):
    """The manager does not want this node."""

    exit_status = 4


class StateUnusable(NodeError):
    """The state folder cannot be made, read or written."""

    exit_status = 5


class WorkerDown(NodeError):
    """A worker is not there to obey, and was not back in time."""
