"""The reader of the manager's environment variables. A bad value ends the process with a line that names it."""

import gc
import os
import sys
from typing import NoReturn

from configuration.environment import EnvironmentReader, SettingError

# What a start imports stays, and looking through it again and again takes a fifth of the start. OperationsConfig.ready
# turns the collector on again.
gc.disable()


def _stop(error: SettingError) -> NoReturn:
    sys.exit(f"causeway: {error}")


env = EnvironmentReader(os.environ, on_error=_stop)
VARIABLES = env.variables  # for docs/settings.md (tools/settings_page.py)
