"""The command line before anything is sent: what is typed, what is shown, where files go."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli import render
from cli.client import Api, connect, prediction_path
from cli.main import COMMANDS, main
from cli.picture import NothingToSave, check_target, save
from cli.screen import Screen
from cli.waiting import describe_state
from shared.errors import InputInvalid, SettingsInvalid
from shared.settings import REPOSITORY, variables


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def screen() -> Screen:
    return Screen(out=Console(file=io.StringIO()), err=Console(file=io.StringIO()))


def shown(screen: Screen) -> str:
    file = screen.out.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: granule {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["paint"], ["render"], ["jobs", "--status", "done"], ["show"]])
def test_a_wrong_command_line_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(("missing", "words"), [("rich", ["jobs"]), ("psutil", ["doctor"])])
def test_a_package_that_is_not_installed_is_named(missing: str, words: list[str]) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from cli.main import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"granule: {missing}") and "pip install '.[local]'" in done.stderr


def test_where_nothing_answers_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cli.client.TRY_AGAIN_S", 0.0)
    assert main(["jobs", "--url", "http://127.0.0.1:9"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "no API answers at http://127.0.0.1:9 (connection refused)" in told.err and "./granule up" in told.err


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"PORT": "8123", "GRANULE_HOST": "0.0.0.0"}, "http://127.0.0.1:8123"),
        ({"PORT": "0", "GRANULE_HOST": "::1"}, "http://[::1]:8000"),
        ({"GRANULE_CLIENT_URL": "https://tiles.example.com/v1/"}, "https://tiles.example.com"),
    ],
)
def test_the_api_is_the_one_that_is_named_else_the_one_here(
    settings: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert connect(argparse.Namespace(url=None, token=None)).url == url


@pytest.mark.parametrize(("url", "token"), [("tiles.example.com", None), ("ftp://tiles", None), ("http://tiles", "a\nb")])
def test_an_address_or_token_that_cannot_work_is_refused(url: str, token: str | None) -> None:
    with pytest.raises(SettingsInvalid):
        connect(argparse.Namespace(url=url, token=token))


class OtherServer(BaseHTTPRequestHandler):
    """A web server that is no Granule."""

    def do_GET(self) -> None:
        self.send_response(301 if "predictions/" in self.path else 200)
        self.send_header("Location", f"https://tiles.example.com{self.path}")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"<p>hello" if "models" in self.path else b'{"results": [{"id": "a"}], "next": null}')

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["jobs"], "is missing"),
        (["models"], "its answer is no JSON"),
        (["show", "a"], "sends to https://tiles.example.com/v1/predictions/a: name that address with --url"),
        (["render", "100% red"], "answered 501, and not as Granule's API does"),
    ],
)
def test_what_is_no_granule_is_told_and_no_traceback(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert main([*words, "--url", f"http://127.0.0.1:{server.server_port}"]) == 1
        finally:
            server.shutdown()
            thread.join()
    assert told in capsys.readouterr().err


def test_an_id_cannot_lead_elsewhere() -> None:
    assert prediction_path("../models?x=1") == "/v1/predictions/..%2Fmodels%3Fx%3D1"


def ordered(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    return render.order_input(parser.parse_args(words))


def test_an_order_holds_what_was_named_and_nothing_else() -> None:
    assert ordered("50% red") == {"prompt": "50% red"}
    assert ordered("x", "--seed", "7", "-o", "a.JPEG") == {"prompt": "x", "seed": 7, "output_format": "jpg"}
    assert ordered("x", "-o", "a.jpg", "--format", "webp", "--quality", "80") == {
        "prompt": "x",
        "output_format": "webp",
        "output_quality": 80,
    }
    assert ordered("x", "-i", "guided=true", "-i", "note=a=b", "-i", "n=3") == {
        "prompt": "x",
        "guided": True,
        "note": "a=b",
        "n": 3,
    }
    with pytest.raises(InputInvalid, match="NAME=VALUE"):
        ordered("x", "-i", "seamless")


def test_text_from_outside_cannot_command_the_terminal(screen: Screen) -> None:
    screen.show("red\x1b[2J\x9bblue\u202egreen [bold]")
    assert shown(screen) == "red\ufffd[2J\ufffdblue\ufffdgreen [bold]\n"


def test_a_table_has_tabs_where_no_person_reads(screen: Screen) -> None:
    screen.table(("id", "prompt"), [("a", "50% red,\n50%\tblue " + "x" * 200)])
    assert shown(screen).splitlines() == ["id\tprompt", "a\t50% red, 50% blue " + "x" * 200]


def test_json_is_one_line_of_ascii_where_no_person_reads(screen: Screen) -> None:
    screen.dump({"prompt": "50% красный"})
    assert shown(screen).isascii() and json.loads(shown(screen)) == {"prompt": "50% красный"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"queue_position": 0}, "waiting"),
        ({"queue_position": 3, "eta_s": 40.2}, "waiting, 3 before it, about 40 s"),
        ({"queue_note": "no worker"}, "waiting; no worker serves its model"),
        ({"status": "processing"}, "step 2 of 14"),
    ],
)
def test_where_a_job_stands(fields: dict[str, Any], words: str) -> None:
    made = {
        "status": "starting",
        "queue_position": None,
        "queue_note": None,
        "eta_s": None,
        "progress": {"step": 2, "steps": 14},
    }
    assert describe_state({**made, **fields}) == words  # type: ignore[typeddict-item]


def made_of(output: object, **fields: object) -> Any:
    return {"id": "a", "status": "succeeded", "output": output, "data_removed": False, "error": None, **fields}


class Answer(io.BytesIO):
    """What requests would give for an address."""

    def __init__(self, data: bytes, kind: str) -> None:
        super().__init__(data)
        self.headers = {"Content-Type": kind}

    def iter_content(self, size: int) -> list[bytes]:
        return [self.read()]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Api]:
    def answering(kind: str) -> Api:
        api = Api("http://127.0.0.1:9", None)
        monkeypatch.setattr(api, "open", lambda address: Answer(address.encode(), kind))
        return api

    return answering


def test_pictures_are_saved_under_the_name_that_was_given_or_their_own(tmp_path: Path, api: Callable[[str], Api]) -> None:
    address = "http://tiles/v1/files/t/2026_50red.png"
    assert save(api("image/png"), made_of(address), str(tmp_path / "new" / "tile.png")) == [str(tmp_path / "new" / "tile.png")]
    assert save(api("image/png"), made_of([address, address]), str(tmp_path / "t.png"))[1] == str(tmp_path / "t-2.png")
    assert save(api("image/png"), made_of(address), str(tmp_path)) == [str(tmp_path / "2026_50red.png")]
    assert (tmp_path / "t-2.png").read_bytes() == address.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026_50red.png", "new", "t-2.png", "t.png"]


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", ".profile", "%2e%2e", ""])
def test_a_name_from_outside_stays_in_its_folder(name: str, tmp_path: Path, api: Callable[[str], Api]) -> None:
    [place] = save(api("image/png"), made_of(f"http://tiles/v1/files/{name}"), str(tmp_path))
    assert Path(place).parent == tmp_path and not Path(place).name.startswith(".")


def test_what_is_no_picture_is_not_saved(tmp_path: Path, api: Callable[[str], Api]) -> None:
    with pytest.raises(Exception, match="is no picture but text/html"):
        save(api("text/html"), made_of("http://tiles/x.png"), str(tmp_path / "tile.png"))
    with pytest.raises(NothingToSave, match="it failed: no memory"):
        save(api("image/png"), made_of(None, status="failed", error="no memory"), str(tmp_path / "tile.png"))
    with pytest.raises(NothingToSave, match="was removed"):
        save(api("image/png"), made_of(None, data_removed=True), str(tmp_path / "tile.png"))
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path, api: Callable[[str], Api]) -> None:
    address = "http://tiles/x.png"
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("before")
    save(api("image/png"), made_of(address), str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == address
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    save(api("image/png"), made_of(address), str(tmp_path / "pipe"))
    assert os.read(reader, 100) == address.encode() and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_ordered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputInvalid, match="no file can be written"):
        check_target(str(tmp_path / "file" / "tile.png"))
    check_target(str(tmp_path / "new" / "folder" / "tile.png"))
    check_target("-")


def test_every_command_is_in_the_manual_and_at_the_front_door() -> None:
    manual = (REPOSITORY / "docs/command-line.md").read_text(encoding="utf-8")
    door = (REPOSITORY / "granule").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`{command}" in manual
        assert f"cmd_{command}() {{ ## " in door
