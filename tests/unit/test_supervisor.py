"""The supervisor, on real processes that do next to nothing."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.local.process import Program
from infra.local.run_folder import PROCESSES, claimed, end_leftovers, write_processes
from infra.local.supervisor import ProgramFailed, RestartPolicy, StopRequested, Supervisor
from shared.errors import SettingsInvalid

FAST = RestartPolicy(first_delay_s=0.05, quick_s=10, give_up_after=3)


class Lines(list[tuple[str, str]]):
    """Collects what the supervisor writes."""

    def write(self, name: str, line: str) -> None:
        self.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for owner, line in self if owner == name]


def program(name: str, code: str, folder: Path, **options: object) -> Program:
    """A Python program; `log(TEXT)` in its code appends a line to the file `events`."""
    prelude = f"import os, signal, sys, time\ndef log(text): open({str(folder / 'events')!r}, 'a').write(text + '\\n')\n"
    command = (sys.executable, "-I", "-S", "-u", "-c", prelude + textwrap.dedent(code))
    return Program(name=name, command=command, env={}, cwd=folder, **options)  # type: ignore[arg-type]


def events(folder: Path) -> list[str]:
    file = folder / "events"
    return file.read_text().split() if file.exists() else []


def wait_for(condition: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


SERVE = """
    log("start-{name}")
    def end(*_):
        log("end-{name}")
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    time.sleep({delay})
    log("ready-{name}")
    while True: time.sleep(0.01)
"""


def test_starts_in_order_and_stops_in_reverse(tmp_path: Path) -> None:
    def server(name: str, delay: float) -> Program:
        return program(name, SERVE.format(name=name, delay=delay), tmp_path, ready=lambda: f"ready-{name}" in events(tmp_path))

    with Supervisor([server("a", 0.3), server("b", 0)], folder=tmp_path / "run", write_line=Lines().write) as supervisor:
        supervisor.start()
        assert events(tmp_path) == ["start-a", "ready-a", "start-b", "ready-b"]
    assert events(tmp_path)[4:] == ["end-b", "end-a"]


def test_a_background_program_lets_the_next_one_start_and_is_awaited_at_the_end(tmp_path: Path) -> None:
    slow = program(
        "slow", SERVE.format(name="slow", delay=0.4), tmp_path, background=True, ready=lambda: "ready-slow" in events(tmp_path)
    )
    quick = program("quick", SERVE.format(name="quick", delay=0), tmp_path, ready=lambda: "ready-quick" in events(tmp_path))
    with Supervisor([slow, quick], folder=tmp_path / "run", write_line=Lines().write) as supervisor:
        supervisor.start()
        seen = events(tmp_path)
    assert seen.index("ready-quick") < seen.index("ready-slow")


def test_a_start_that_fails_names_the_program_and_shows_its_last_lines(tmp_path: Path) -> None:
    good = program("good", SERVE.format(name="good", delay=0), tmp_path, ready=lambda: "ready-good" in events(tmp_path))
    bad = program("bad", "print('no such key: colour'); sys.exit(7)", tmp_path, ready=lambda: False, quiet=True)
    with (
        pytest.raises(ProgramFailed, match="bad ended with status 7") as caught,
        Supervisor([good, bad], folder=tmp_path / "run", write_line=Lines().write) as supervisor,
    ):
        supervisor.start()
    assert caught.value.tail == ("no such key: colour",)
    assert "end-good" in events(tmp_path)


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = Program(name="missing", command=("/no/such/server",), env={}, cwd=tmp_path, ready=lambda: False, quiet=True)
    with (
        pytest.raises(ProgramFailed) as caught,
        Supervisor([missing], folder=tmp_path / "run", write_line=Lines().write) as supervisor,
    ):
        supervisor.start()
    assert "/no/such/server" in caught.value.detail + "".join(caught.value.tail)


def test_a_program_that_never_becomes_ready_is_given_up(tmp_path: Path) -> None:
    deaf = program("deaf", "time.sleep(60)", tmp_path, ready=lambda: False, ready_timeout_s=0.3)
    with (
        pytest.raises(ProgramFailed, match=r"deaf was not ready after 0\.3 s"),
        Supervisor([deaf], folder=tmp_path / "run", write_line=Lines().write) as supervisor,
    ):
        supervisor.start()


def test_a_stop_asked_for_during_the_start_breaks_it_off(tmp_path: Path) -> None:
    deaf = program("deaf", "time.sleep(60)", tmp_path, ready=lambda: False)
    supervisor = Supervisor([deaf], folder=tmp_path / "run", write_line=Lines().write)
    with pytest.raises(StopRequested), supervisor:
        supervisor.request_stop()
        supervisor.start()
    assert supervisor.pid("deaf") is None


def test_a_killed_program_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    lines = Lines()
    programs = [program(name, SERVE.format(name=name, delay=0), tmp_path) for name in ("a", "b")]
    with Supervisor(programs, folder=tmp_path / "run", write_line=lines.write, restart=FAST) as supervisor:
        supervisor.start()
        first_a, first_b = supervisor.pid("a"), supervisor.pid("b")
        assert first_a is not None
        os.kill(first_a, signal.SIGKILL)

        def restarted() -> bool:
            supervisor.check()
            return supervisor.pid("a") not in (first_a, None)

        wait_for(restarted)
        assert supervisor.pid("b") == first_b
    assert lines.of("granule") == ["a ended with status -9; starting it again in 0.05 s"]


def test_quick_failures_are_answered_ever_later_and_then_not_at_all(tmp_path: Path) -> None:
    lines = Lines()
    crashing = program("crashing", "log('start'); print('boom'); sys.exit(3)", tmp_path, quiet=True)
    with Supervisor([crashing], folder=tmp_path / "run", write_line=lines.write, restart=FAST) as supervisor:
        supervisor.start()
        with pytest.raises(ProgramFailed, match="ended 3 times in a row, last with status 3") as caught:
            supervisor.run()
    assert events(tmp_path) == ["start"] * 3
    assert [line.rsplit(" in ")[1] for line in lines.of("granule")] == ["0.05 s", "0.1 s"]
    assert caught.value.tail == ("boom",)


def test_a_program_that_ignores_the_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = program(
        "stubborn",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); log('deaf'); time.sleep(60)",
        tmp_path,
        grace_s=0.3,
        ready=lambda: "deaf" in events(tmp_path),
    )
    supervisor = Supervisor([stubborn], folder=tmp_path / "run", write_line=Lines().write)
    supervisor.start()
    began_s = time.monotonic()
    supervisor.stop()
    assert 0.3 <= time.monotonic() - began_s < 3


def test_a_second_request_stops_without_grace(tmp_path: Path) -> None:
    stubborn = program(
        "stubborn",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); log('deaf'); time.sleep(60)",
        tmp_path,
        grace_s=60,
        ready=lambda: "deaf" in events(tmp_path),
    )
    supervisor = Supervisor([stubborn], folder=tmp_path / "run", write_line=Lines().write)
    supervisor.start()
    supervisor.request_stop()
    supervisor.request_stop()
    began_s = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began_s < 3


def test_what_a_program_started_itself_ends_with_it(tmp_path: Path) -> None:
    parent = program(
        "parent", "log(str(os.fork() or os.getpid())); time.sleep(60)", tmp_path, ready=lambda: len(events(tmp_path)) == 2
    )
    with Supervisor([parent], folder=tmp_path / "run", write_line=Lines().write) as supervisor:
        supervisor.start()
    wait_for(lambda: not any(alive(int(pid)) for pid in events(tmp_path)))


def test_output_goes_to_the_log_file_and_only_loud_programs_are_shown(tmp_path: Path) -> None:
    lines = Lines()
    log_file = tmp_path / "run" / "quiet.log"
    loud = program("loud", "print('hello'); time.sleep(60)", tmp_path)
    quiet = program("quiet", "print('hush'); time.sleep(60)", tmp_path, quiet=True)
    for run in (1, 2):
        with Supervisor([loud, quiet], folder=tmp_path / "run", write_line=lines.write) as supervisor:
            supervisor.start()
            wait_for(lambda run=run: len(lines) == run and supervisor.tail("quiet"))
    assert lines == [("loud", "hello")] * 2
    assert log_file.read_text() == "hush\n"
    assert log_file.with_suffix(".log.1").read_text() == "hush\n"


def test_a_full_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.process.LOG_MAX_BYTES", 50)
    log_file = tmp_path / "run" / "chatty.log"
    chatty = program("chatty", "[print(f'line {n:04}') for n in range(20)]; log('done'); time.sleep(60)", tmp_path, quiet=True)
    with Supervisor([chatty], folder=tmp_path / "run", write_line=Lines().write) as supervisor:
        supervisor.start()
        wait_for(lambda: supervisor.tail("chatty")[-1:] == ["line 0019"])
    kept = log_file.with_suffix(".log.1").read_text() + (log_file.read_text() if log_file.exists() else "")
    assert kept.splitlines()[-1] == "line 0019"
    assert len(kept) <= 2 * 60


def test_a_log_that_cannot_be_written_stops_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(log_file: Path, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("infra.local.process._append", full)
    chatty = program("chatty", "[print(f'line {n:06}') for n in range(20_000)]; time.sleep(60)", tmp_path, quiet=True)
    with Supervisor([chatty], folder=tmp_path / "run", write_line=Lines().write) as supervisor:
        supervisor.start()
        wait_for(lambda: supervisor.tail("chatty")[-1:] == ["line 019999"])


SUPERVISE = """
import sys
from pathlib import Path
from infra.local.process import Program
from infra.local.supervisor import Supervisor
child = Program(name="child", command=("sleep", "300"), env={"PATH": "/usr/bin:/bin"}, cwd=Path("/"))
supervisor = Supervisor([child], folder=Path(sys.argv[1]), write_line=lambda name, line: None)
supervisor.start()
print(supervisor.pid("child"), flush=True)
supervisor.run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only; elsewhere the next start does")
def test_killing_the_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        assert alive(child)
        supervisor.kill()
    wait_for(lambda: not alive(child))


def test_the_next_start_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    orphan = subprocess.Popen(["sleep", "300"], start_new_session=True)
    write_processes(tmp_path / PROCESSES, [orphan.pid])
    with claimed(tmp_path) as ended:
        assert ended == [orphan.pid]
    assert orphan.wait(timeout=5) == -signal.SIGKILL


def test_a_folder_in_use_is_refused_and_freed_at_the_end(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(SettingsInvalid, match="another local stack is using"), claimed(tmp_path):
        pass
    with claimed(tmp_path) as ended:
        assert ended == []


def test_a_process_that_only_has_the_number_of_an_old_one_is_spared(tmp_path: Path) -> None:
    file = tmp_path / PROCESSES
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        write_processes(file, [bystander.pid])
        file.write_text(file.read_text().replace('"created_s": ', '"created_s": 1'))
        assert end_leftovers(file) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_damaged_pid_file_does_not_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / PROCESSES).write_text('[{"pid": 1')
    assert end_leftovers(tmp_path / PROCESSES) == []


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead but not yet collected by its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
