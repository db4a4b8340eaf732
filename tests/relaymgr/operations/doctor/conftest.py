from tests.relaymgr.sessions.conftest import process, relay

__all__ = ["process", "relay"]
