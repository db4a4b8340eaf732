"""`manage.py relayctl`: for operators, at a terminal and in scripts (docs/relayctl.md)."""

import argparse
import logging
from typing import Any

from django.core.management.base import BaseCommand

from relaymgr.operations.relayctl.app import app


class Command(BaseCommand):
    help = "Look at the fleet and act on it: status, nodes, sessions, doctor and more. See relayctl --help."
    requires_system_checks = ()  # whoever is in trouble must be able to look; `doctor` runs them

    def run_from_argv(self, argv: list[str]) -> None:
        """typer reads the arguments: Django would take --help and --version for itself."""
        logging.getLogger().setLevel(logging.ERROR)  # what services log is for those who watch the manager
        app(argv[2:], prog_name="relayctl")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, arguments: list[str], **options: Any) -> None:
        """For `call_command`."""
        app(arguments, prog_name="relayctl", standalone_mode=False)
