"""Errors that stop a node or one of its calls. The refusal of a grant is in core/grants.py."""


class NodeError(Exception):
    """The base class. `exit_status` is that of the process if nothing handles the error."""

    exit_status = 1


class ConfigError(NodeError):
    """A setting is missing or has an unusable value."""

    exit_status = 2

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable} {reason}")


class PortUnavailable(NodeError):
    """A port is used by another process, or its address is not one of this machine."""

    exit_status = 3

    def __init__(self, kind: str, address: str, port: int, reason: str) -> None:
        super().__init__(f"{kind} port {port} on {address or 'all addresses'} cannot be opened: {reason}")


class JoinRefused(NodeError):
    """The manager refused the join."""

    exit_status = 4


class StateUnusable(NodeError):
    """The state folder cannot be created, read or written."""

    exit_status = 5


class WorkerDown(NodeError):
    """A worker is down and was not replaced in time."""
