"""The manager's fixtures: what is below it is tested through it."""

from tests.support.manager import *  # noqa: F403
