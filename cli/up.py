"""`granule up`: the local stack until Ctrl-C."""

from __future__ import annotations

import argparse

from cli.screen import Screen
from infra.local.cli import main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing: everything is a setting."""


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Serve."""
    return main(["up"])
