"""`granule demo`: from nothing to a picture."""

from __future__ import annotations

import argparse

from cli.screen import Screen
from infra.local.cli import main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing: everything is a setting."""


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Render one tile and stop."""
    return main(["demo"])
