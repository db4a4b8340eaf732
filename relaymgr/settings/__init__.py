"""Every setting of the manager and the matchmaker, read from environment variables when a process starts.

With nothing set, an installation serves one machine: SQLite, and a broker made of files, below `var/`. DATABASE_URL
(postgres://) and BROKER_URL (redis://) make it ready for production. A secret may also come from a file: NAME_FILE
in place of NAME. The modules are imported in the order of the sections in docs/settings.md, which is generated from
them.
"""

# ruff: noqa: F403, I001

from relaymgr.settings.environment import VARIABLES as VARIABLES
from relaymgr.settings.storage import *
from relaymgr.settings.web import *
from relaymgr.settings.rest import *
from relaymgr.settings.nodes import *
from relaymgr.settings.sessions import *
from relaymgr.settings.matchmaking import *
from relaymgr.settings.task_queue import *
from relaymgr.settings.observability import *
from relaymgr.settings.framework import *
