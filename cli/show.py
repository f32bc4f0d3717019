"""`granule show ID`: a prediction in words; its picture with `-o`."""

from __future__ import annotations

import argparse

from cli.client import add_connection, connect, prediction_path, read_prediction
from cli.main import FAILED, add_json
from cli.picture import STANDARD_OUTPUT, check_target, save
from cli.screen import Screen
from cli.waiting import UNFINISHED, describe_state, wait
from shared.wire import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which prediction is shown, and how."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("-o", "--output", metavar="FILE", help="save its picture: a file, a folder, or - for standard output")
    parser.add_argument("--wait", action="store_true", help="until it has ended")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait")
    parser.add_argument("--logs", action="store_true", help="its log lines instead")
    add_json(parser)
    add_connection(parser)


def run(arguments: argparse.Namespace, screen: Screen) -> int:
    """Show it. The status is 1 when it failed or was called off and its end was waited for. Raises GranuleError."""
    if arguments.output:
        check_target(arguments.output)
    api = connect(arguments)
    made = read_prediction(api.get(prediction_path(arguments.id)))
    if arguments.wait:
        made = wait(api, made, screen, timeout_s=arguments.timeout)
    places = save(api, made, arguments.output) if arguments.output else []
    if arguments.output != STANDARD_OUTPUT:
        _write(made, places, arguments, screen)
    return FAILED if arguments.wait and made["status"] != "succeeded" else 0


def _write(made: Prediction, places: list[str], arguments: argparse.Namespace, screen: Screen) -> None:
    if screen.as_json:
        screen.dump({**made, "files": places} if places else made)
    elif arguments.logs:
        screen.show(made["logs"].rstrip("\n"))
    else:
        if places:
            screen.show("\n".join(places))
        screen.show(describe(made))


def describe(made: Prediction) -> str:
    """Return a prediction as lines of name and value, and its colours as a table: ordered beside measured."""
    status = made["status"]
    output = made["output"]
    took = made["metrics"]
    pairs = [
        ("id", made["id"]),
        ("status", f"{status}, {describe_state(made)}" if status in UNFINISHED else status),
        ("prompt", str(made["input"].get("prompt", ""))),
        ("seed", str(made["seed"])),
        ("model", f"{made['model']}:{made['version'][:12]}"),
        ("created", made["created_at"]),
        ("ended", made["completed_at"] or ""),
        (
            "took",
            f"{took['total_time']:.1f} s, {took.get('predict_time', 0):.1f} s of it drawing" if "total_time" in took else "",
        ),
        ("attempts", str(made["attempts"]) if made["attempts"] > 1 else ""),
        ("drawn as", made["reused_from"] or ""),
        ("error", f"{made['error']} ({made['error_code']})" if made["error"] else ""),
        ("note", made["queue_note"] or ""),
        ("picture", output if isinstance(output, str) else " ".join(output or [])),
        ("removed", "picture, input and logs" if made["data_removed"] else ""),
        *(("warning", warning) for warning in made["warnings"]),
    ]
    lines = [f"{name:<9} {value}" for name, value in pairs if value]
    for entry in made["composition"] or []:
        ordered = f"{entry['ordered']:5.1f} % ordered" if entry["ordered"] else "    not ordered"
        lines.append(f"  {entry['color']:<14} {ordered}  {entry['measured']:5.1f} % measured")
    if made["color_error"] is not None:
        lines.append(f"  colour error {made['color_error']:.3f} (0: exactly as ordered, 1: nothing of it)")
    return "\n".join(lines)
