"""`manage.py relayctl`: the command line of operators (docs/relayctl.md)."""

import argparse
import logging
from typing import Any

from django.core.management.base import BaseCommand

from relaymgr.operations.relayctl.app import app


class Command(BaseCommand):
    help = "Inspect and operate the fleet: status, nodes, sessions, doctor and more. See relayctl --help."
    requires_system_checks = ()  # it has to work in a broken installation too; `doctor` runs them

    def run_from_argv(self, argv: list[str]) -> None:
        """Leaves the arguments to typer: Django would handle --help and --version itself."""
        logging.getLogger().setLevel(logging.ERROR)  # log lines of services belong to the manager's log
        app(argv[2:], prog_name="relayctl")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, arguments: list[str], **options: Any) -> None:
        """For `call_command`."""
        app(arguments, prog_name="relayctl", standalone_mode=False)
