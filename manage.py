#!/usr/bin/env python
"""Django's command line: migrate, up, tenant_create, join_key and the rest."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError:
        sys.exit(
            f"causeway: {sys.executable} has not the packages that Causeway needs. Use .venv/bin/python manage.py "
            "(`make .venv/.run` makes it), or: python3.11 -m pip install -r requirements.txt"
        )
    execute_from_command_line(sys.argv)
