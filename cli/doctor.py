"""`granule doctor`: what is wrong with this machine's set-up, and how to mend it.

It reads the same settings as every process, asks the servers that they name, and changes nothing but for one key and one
object that it removes again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.text import Text

from cli.client import Api, ApiRefused, ApiUnreachable, add_connection, connect
from cli.doctor_local import check_brought, names_redis, names_storage, with_local_servers
from cli.doctor_machine import check_python, check_resources, check_torch
from cli.doctor_models import check_models
from cli.doctor_redis import check_redis
from cli.doctor_settings import check_settings
from cli.doctor_storage import check_storage
from cli.findings import Finding, Level, note, ok, warning, wrong
from cli.main import FAILED, add_json
from cli.screen import STATUS_STYLES, Screen, clean
from infra.local.ports import is_free
from shared.errors import SettingsInvalid
from shared.settings import Settings, load_settings

PROBLEM = re.compile(r"; (?=[A-Z][A-Z0-9_]+(?::| is ))")
"""Between the complaints about settings, each of which begins with a variable's name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how thorough it is."""
    parser.add_argument("--quick", action="store_true", help="without loading torch and without reading the weights")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Look at everything. The status is 1 when something is wrong; warnings alone leave it at 0."""
    counts = dict.fromkeys(Level, 0)
    for finding in _examine(arguments):
        counts[finding.level] += 1
        if screen.as_json:
            screen.dump(asdict(finding))
        else:
            _write(finding, screen)
    if not screen.as_json:
        found = f"{counts[Level.WRONG]} wrong, {counts[Level.WARNING]} warnings, {counts[Level.OK]} in order"
        screen.show(f"\n{found}" if counts[Level.WRONG] or counts[Level.WARNING] else f"\nall is well: {found}")
    return FAILED if counts[Level.WRONG] else 0


def _examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    yield from check_python()
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        for problem in PROBLEM.split(error.detail):
            yield wrong("settings", problem, "docs/configuration.md lists every setting")
        yield note("settings", "the rest can be looked at once the settings can be read")
        return
    yield from check_settings(settings)
    yield from check_resources(settings)
    if not arguments.quick:
        yield from check_torch(settings)
    yield from check_models(settings, digests=not arguments.quick)
    located = with_local_servers(settings)
    yield from check_brought(located)
    if names_redis(located):
        yield from check_redis(located)
    if names_storage(located):
        yield from check_storage(located)
    yield from _check_api(arguments, settings)


def _check_api(arguments: argparse.Namespace, settings: Settings) -> Iterator[Finding]:
    try:
        api = connect(arguments)
        ready = api.probe("/readyz")
    except SettingsInvalid as error:
        yield wrong("api", error.detail, "correct --url or GRANULE_CLIENT_URL")
        return
    except ApiUnreachable as error:
        if arguments.url or settings.client_url:
            yield wrong("api", error.detail, "start it there, or correct the address")
        elif settings.port and not is_free(settings.port, settings.host):
            yield wrong("api", f"another program has port {settings.port} of {settings.host}", "end that program, or set PORT")
        else:
            yield note("api", "none runs here; ./granule up starts one")
        return
    yield from _describe_api(api, ready)


def _describe_api(api: Api, ready: dict[str, Any]) -> Iterator[Finding]:
    for part in ("redis", "storage"):
        if ready.get(part) != "ok":
            yield wrong(
                "api",
                f"the one at {api.url} says of its {part}: {ready.get(part)}",
                "look at its settings, which may be others",
            )
    workers = {model: count for model, count in ready.get("workers", {}).items() if count}
    if workers:
        yield ok("api", f"{api.url} serves; workers: " + ", ".join(f"{count} for {model}" for model, count in workers.items()))
    else:
        yield warning("api", f"{api.url} serves, and no worker draws: orders wait", "start one: granule work --gpus all")
    try:
        yield ok("token", f"it is known there, as {api.get('/v1/account')['username']}")
    except ApiRefused as error:
        yield warning("token", f"{api.url} says: {error.detail}", "set GRANULE_CLIENT_TOKEN, if you use these commands here")


def _write(finding: Finding, screen: Screen) -> None:
    line = Text(f"{finding.level:<8}", style=STATUS_STYLES[finding.level])
    screen.out.print(line + Text(f" {clean(finding.subject):<12} {clean(finding.detail)}"), soft_wrap=True)
    if finding.cure:
        screen.out.print(Text(f"{'':<21} -> {clean(finding.cure)}", style="bold"), soft_wrap=True)
