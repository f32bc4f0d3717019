from __future__ import annotations

import threading
import time

import pytest

from worker.duty import DutyMeter
from worker.spool import Spool


def test_a_picture_is_published_beside_its_thread_and_a_full_spool_waits() -> None:
    spool, gate, published = Spool(2), threading.Event(), []

    def publish() -> None:
        gate.wait(5)
        published.append(threading.current_thread().name)

    for _ in range(2):
        assert spool.wait_for_place(lambda: False)
        spool.put(publish)
    assert published == []
    assert not spool.wait_for_place(lambda: True)
    threading.Timer(0.05, gate.set).start()
    assert spool.wait_for_place(lambda: False)
    spool.wait_until_empty()
    assert len(published) == 2 and threading.current_thread().name not in published


def test_a_place_holds_the_pictures_that_are_drawn_at_once() -> None:
    spool, gate = Spool(2, at_once=3), threading.Event()
    for _ in range(3):
        spool.put(lambda: bool(gate.wait(5)) or None)
    assert spool.wait_for_place(lambda: True)
    spool.put(lambda: bool(gate.wait(5)) or None)
    assert not spool.wait_for_place(lambda: True)
    gate.set()
    spool.wait_until_empty()


def test_without_places_the_caller_publishes() -> None:
    spool, published = Spool(0), []
    assert spool.wait_for_place(lambda: False)
    spool.put(lambda: published.append(threading.current_thread()))
    assert published == [threading.current_thread()]


def test_waiting_for_the_last_picture_has_an_end() -> None:
    spool, gate, calls = Spool(1), threading.Event(), []
    spool.put(lambda: bool(gate.wait(5)) or None)
    began_s = time.monotonic()
    spool.wait_until_empty(lambda: calls.append(1), timeout_s=0.1)
    assert calls and time.monotonic() - began_s < 2
    gate.set()
    spool.wait_until_empty()


def test_a_place_is_free_again_after_an_error_that_nobody_foresaw() -> None:
    spool, hook = Spool(1), threading.excepthook
    threading.excepthook = lambda arguments: None
    try:
        spool.put(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        spool.wait_until_empty(timeout_s=5)
    finally:
        threading.excepthook = hook
    assert spool.wait_for_place(lambda: True)


def test_a_picture_is_published_even_where_the_system_gives_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spool, published = Spool(1), []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    spool.put(lambda: published.append(threading.current_thread()))
    assert published == [threading.current_thread()] and spool.wait_for_place(lambda: True)


def test_only_time_in_which_a_job_waited_counts_as_starved() -> None:
    now_s = 0.0
    meter = DutyMeter(lambda: now_s)
    for now_s, waited_s in ((10.0, 2.0), (20.0, 30.0), (25.0, 0.5)):
        meter.start(waited_s)
        now_s += 4
        meter.stop()
    # Idle for 10 s, of which a job waited 2; idle for 6 s (14 to 20), all of it with a job; 1 s (24 to 25), half of it.
    assert (meter.busy_s, meter.starved_s) == (12.0, 2.0 + 6.0 + 0.5)
