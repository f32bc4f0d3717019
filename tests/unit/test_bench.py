"""The benchmarks' front door and what they write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.__main__ import FOLDER, find_benches, main
from bench.machine import describe_machine
from bench.results import Chart, Report, Table, percentile, write_report


def test_every_benchmark_is_listed_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    benches = find_benches(FOLDER)
    assert {"overhead", "composition"} <= benches.keys()
    assert all(what and f"{name} " in listed and what in listed for name, what in benches.items())
    assert not {"machine", "results", "peers"} & benches.keys()


def test_an_unknown_benchmark_is_refused_before_any_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert main(["overhead", "composition", "--rounds", "1"]) == 2


def test_a_benchmark_gets_its_arguments() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "overhead", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--rounds" in done.stdout


def test_a_report_is_written_for_programs_and_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = describe_machine()
    table = Table("Times", ["", "ms"], [["Granule", 12.345], ["nothing", None]])
    chart = Chart("Times", ["Granule", "nothing"], {"ms": [12.345, None]})
    write_report(Report("sample", machine, {"ms": [12.345]}, [table], chart, ["A note."]), tmp_path)
    assert json.loads((tmp_path / "sample.json").read_text())["machine"] == machine
    text = (tmp_path / "sample.md").read_text()
    assert "| Granule | 12.3 |" in text and "| nothing | - |" in text and text == capsys.readouterr().out
    svg = (tmp_path / "sample.svg").read_bytes()
    ElementTree.fromstring(svg)
    assert b"Granule" in svg and b"<script" not in svg


def test_percentiles_are_values_that_occurred() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 1), percentile([], 50)) == (3.0, 5.0, 1.0, None)
