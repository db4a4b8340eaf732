"""The reader of the manager's environment variables. A bad value ends the process with a line that names it."""

import os
import sys
from typing import NoReturn

from configuration.environment import EnvironmentReader, SettingError


def _stop(error: SettingError) -> NoReturn:
    sys.exit(f"causeway: {error}")


env = EnvironmentReader(os.environ, on_error=_stop)
VARIABLES = env.variables  # for docs/settings.md (tools/settings_page.py)
