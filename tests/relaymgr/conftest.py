"""The manager's fixtures."""

from tests.support.manager import *  # noqa: F403
