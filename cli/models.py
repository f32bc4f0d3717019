"""`granule models`: the API's models. `granule models check FILE...`: would a worker load this file?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cli.child import ask
from cli.client import add_connection, connect
from cli.main import FAILED, add_json
from cli.screen import Screen

CHECK_TIMEOUT_S = 1800.0
KINDS = {"lora": "LoRA", "textual_inversion": "textual inversion", "base": "base"}
UNITS = {"size_bytes": "bytes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is looked at: nothing lists the API's models, `check` looks at files on this machine."""
    parser.set_defaults(check=False)
    add_json(parser)
    add_connection(parser)
    commands = parser.add_subparsers(metavar="check", title="command")
    text = "the loader's verdict on LoRA and textual inversion files, without starting anything"
    check = commands.add_parser("check", help=text, description=text[0].upper() + text[1:] + ".")
    check.set_defaults(check=True)
    check.add_argument("files", metavar="FILE", nargs="*", help="unset: every file that the model's manifest names")
    check.add_argument("--model", metavar="OWNER/NAME", help="whose base the files must fit; unset: GRANULE_MODEL")
    check.add_argument("--tokens", metavar="TOKENS", help='of a textual inversion, such as "<s0>,<s1>"; unset: the manifest\'s')
    check.add_argument("--load", action="store_true", help="load them into the base too; takes a worker's time and memory")
    # Not given, it must not undo the one before the subcommand.
    check.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="write JSON, one object a file")


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """List, or check. The status is 1 when a file is refused. Raises GranuleError."""
    return _check(arguments, screen) if arguments.check else _list(arguments, screen)


def _list(arguments: argparse.Namespace, screen: Screen) -> int:
    api = connect(arguments)
    models = list(api.items("/v1/models"))
    workers = api.probe("/readyz")["workers"]
    rows = []
    for model in models:
        slug = f"{model['owner']}/{model['name']}"
        if screen.as_json:
            screen.dump({**model, "workers": workers.get(slug, 0)})
        rows.append((slug, str(workers.get(slug, 0)), str(model["run_count"]), model["latest_version"]["id"]))
    if not screen.as_json:
        screen.table(("model", "workers", "jobs so far", "version"), rows)
    return 0


def _check(arguments: argparse.Namespace, screen: Screen) -> int:
    options = [str(Path(file).absolute()) for file in arguments.files]
    options += ["--model", arguments.model] if arguments.model else []
    options += ["--tokens", arguments.tokens] if arguments.tokens else []
    options += ["--load"] if arguments.load else []
    verdicts = ask("worker.verdict", options, timeout_s=CHECK_TIMEOUT_S)
    for verdict in verdicts:
        if screen.as_json:
            screen.dump(verdict)
        else:
            screen.show(describe(verdict))
    return FAILED if any(verdict["refusal"] for verdict in verdicts) else 0


def describe(verdict: dict[str, Any]) -> str:
    """Return a verdict as lines: what the file is and whether it loads, then what was found in it."""
    path, refusal = verdict["path"], verdict["refusal"]
    kind = KINDS.get(verdict["kind"], "file")
    if refusal:
        lines = [f"{path}: REFUSED", f"  why        {refusal.removeprefix(f'{path}: ')}"]
    else:
        loaded = "was loaded" if verdict["facts"].get("loaded") else "loads"
        lines = [f"{path}: {loaded}, a {kind} for {verdict['model']}"]
    lines += [f"  {name.removesuffix('_bytes'):<10} {_value(name, value)}" for name, value in verdict["facts"].items()]
    return "\n".join(lines)


def _value(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} in {part}" for part, count in value.items())
    if isinstance(value, list):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,} {UNITS.get(name, '')}".rstrip()
    return str(value)
