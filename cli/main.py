"""The `granule` command: finds the command's module, runs it, and turns its errors into sentences and exit statuses.

Exit statuses: 0 done; 1 it failed, or the job did; 2 the command line, a setting or the order is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from shared.errors import GranuleError, InputInvalid, SettingsInvalid

INSTALL = "is not installed; run pip install '.[local]' where Granule lies, or ./granule there, which does it by itself"
try:
    from cli.client import ApiRefused
    from cli.screen import Screen
except ModuleNotFoundError as error:  # services are installed without what only people need
    raise SystemExit(f"granule: {error.name} {INSTALL}") from error

FAILED, USAGE, INTERRUPTED = 1, 2, 130
UNAUTHORIZED, UNPROCESSABLE = 401, 422

COMMANDS: dict[str, str] = {
    "render": "order a picture and save it",
    "jobs": "list the jobs",
    "show": "show a job; save its picture",
    "cancel": "call jobs off",
    "workers": "list the render workers; drain and resume one",
    "deliveries": "list webhook messages, and send them again",
    "models": "list the models; check LoRA and textual inversion files",
    "doctor": "find what is wrong with this machine's set-up, and how to mend it",
    "work": "run one render worker on each GPU of this machine",
    "up": "serve on this machine until Ctrl-C: API, render worker, courier, Redis, S3",
    "demo": "start everything, render one tile, stop",
}
"""Each command is the module of its name in this package, imported only when it is called: some load torch."""


class Command(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say what the command takes."""

    def run(self, arguments: argparse.Namespace, screen: Screen) -> int:
        """Do it and return the exit status. Raises GranuleError."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = _choose(words)
    try:
        command = cast(Command, importlib.import_module(f"cli.{name}"))
    except ModuleNotFoundError as error:
        Screen().failure(f"{error.name} {INSTALL}")
        return FAILED
    parser = argparse.ArgumentParser(prog=f"granule {name}", description=_sentence(COMMANDS[name]))
    command.add_arguments(parser)
    arguments = parser.parse_args(words[1:])
    screen = Screen(as_json=getattr(arguments, "json", False))
    try:
        return command.run(arguments, screen)
    except ApiRefused as error:
        return _explain_refusal(error, screen)
    except (InputInvalid, SettingsInvalid) as error:
        screen.failure(error.detail)
        return USAGE
    except GranuleError as error:
        screen.failure(error.detail)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not fail once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for programs."""
    parser.add_argument("--json", action="store_true", help="write JSON, in lists one object a line")


def _choose(words: Sequence[str]) -> str:
    parser = _Overview(prog="granule", usage="granule COMMAND ...", description="Granule's command line.", add_help=False)
    if not words or words[0] in ("-h", "--help", "help"):
        parser.print_help(sys.stdout)
        raise SystemExit(0)
    if words[0] not in COMMANDS:
        parser.error(f"{words[0]!r} is not a command; granule --help lists them")
    return words[0]


class _Overview(argparse.ArgumentParser):
    def format_help(self) -> str:
        lines = "".join(f"  {name:<11} {text}\n" for name, text in COMMANDS.items())
        return f"{self.description}\n\nusage: {self.usage}\n\n{lines}\ngranule COMMAND --help says what a command takes.\n"

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"granule: {message}\n")


def _explain_refusal(error: ApiRefused, screen: Screen) -> int:
    answer = f"({error.status} {error.code})"
    if error.status == UNAUTHORIZED:
        screen.failure(f"{error.detail}. Give a token with --token, or set GRANULE_CLIENT_TOKEN")
        return FAILED
    if error.status != UNPROCESSABLE:
        screen.failure(f"{error.detail} {answer}")
        return FAILED
    for field, description in error.fields.items():
        screen.failure(f"{field}: {description} {answer}")
    if not error.fields:
        screen.failure(f"{error.detail} {answer}")
    return USAGE


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


if __name__ == "__main__":
    sys.exit(main())
