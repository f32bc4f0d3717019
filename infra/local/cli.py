"""The commands of the local stack, `granule up` and `granule demo`: what `./granule` runs once everything is installed."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from infra.local.demo import PROMPT, DemoFailed, Shop, describe
from infra.local.run_folder import claimed
from infra.local.stack import Stack, plan_stack
from infra.local.supervisor import ProgramFailed, StopRequested, Supervisor
from infra.local.terminal import Terminal
from shared.errors import GranuleError
from shared.settings import Settings, load_settings, variables

DEMO_FILE = Path("out/tile.png")
TAIL_LINES = 12
DEMO_UNSET = frozenset({"api_tokens", "api_tokens_file", "public_url"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 1 after a failure that was explained on standard error."""
    arguments = _parser().parse_args(argv)
    terminal = Terminal()
    try:
        arguments.command(load_settings(), terminal)
    except StopRequested:
        return 0 if arguments.command is up else 1
    except ProgramFailed as error:
        terminal.failure(error.detail, error.tail)
        return 1
    except GranuleError as error:
        terminal.failure(error.detail)
        return 1
    return 0


def up(settings: Settings, terminal: Terminal) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. Standard output gets one line, `ready URL`, once everything serves.

    Raises:
        GranuleError: something could not start or keep running.
    """
    with _running(settings, terminal, folder=settings.data_dir, port=settings.port, environ=os.environ) as (stack, supervisor):
        terminal.write("granule", f"data, keys and logs are in {settings.data_dir.resolve()}")
        sys.stdout.write(f"ready {stack.url}\n")
        sys.stdout.flush()
        supervisor.run()


def demo(settings: Settings, terminal: Terminal) -> None:
    """Start everything in a folder of its own, order one tile, save it as `out/tile.png`, and stop.

    Raises:
        GranuleError: something could not start, or the tile was not rendered.
    """
    folder = settings.data_dir / "demo"
    # It serves nobody else: no tokens, and on a Redis that is named none of the jobs that wait there.
    settings = settings.model_copy(update={"api_tokens": (), "api_tokens_file": None, "public_url": None})
    environ = {name: value for name, value in os.environ.items() if variables().get(name) not in DEMO_UNSET}
    environ["GRANULE_REDIS_PREFIX"] = f"demo-{secrets.token_hex(4)}:"
    terminal.write("granule", "starting Redis, S3, a render worker, the courier and the API")
    with _running(settings, terminal, folder=folder, port=0, environ=environ, quiet=True) as (stack, supervisor):
        shop = Shop(stack.url, check=supervisor.check)
        try:
            made = shop.order(settings.model, PROMPT, terminal.console)
            shop.download(made, DEMO_FILE)
        except DemoFailed:
            for program in stack.programs:
                for line in supervisor.tail(program.name)[-TAIL_LINES:]:
                    terminal.write(program.name, line)
            raise
        sys.stdout.write(describe(made, DEMO_FILE) + "\n")
        supervisor.stop(at_once=True)  # nothing that a grace could save is kept
    shutil.rmtree(folder)


@contextmanager
def _running(
    settings: Settings, terminal: Terminal, *, folder: Path, port: int, environ: Mapping[str, str], quiet: bool = False
) -> Iterator[tuple[Stack, Supervisor]]:
    """Everything is up inside the block and down behind it. With `quiet` the programs' output goes to their log files only."""
    with claimed(folder) as ended:
        for pid in ended:
            terminal.write("granule", f"ended process {pid}, which an earlier run had left behind")
        stack = plan_stack(settings, environ, folder=folder, port=port)
        programs = [replace(program, quiet=quiet or program.quiet) for program in stack.programs]
        supervisor = Supervisor(programs, folder=folder, write_line=terminal.write)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: supervisor.request_stop())
        with supervisor:
            supervisor.start()
            yield stack, supervisor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="granule", description="Granule on one machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, text in (
        (up, "serve until Ctrl-C: API, render worker, courier, Redis, S3"),
        (demo, f"start everything, render '{PROMPT}' into {DEMO_FILE}, stop".replace("%", "%%")),
    ):
        commands.add_parser(command.__name__, help=text).set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
