from __future__ import annotations

import pytest

from shared.settings import Settings
from worker.pulse import Broke, Duty, Holding, Message, Ping, Publishing, Ready, Settled, Step
from worker.watched import PUBLISH_STEP_LIMIT_S, Verdict, Watched

LIMITS = Settings(step_limit_s=10, job_limit_s=100, freeze_limit_s=20, load_limit_s=30)


def worker(*messages: tuple[float, Message], ready: bool = True) -> Watched:
    """One that started at 0 and sent these messages, each at its time."""
    watched = Watched("w", started_s=0.0, pinged_s=0.0)
    for at_s, message in ([(0.0, Ready("cpu"))] if ready else []) + list(messages):
        watched.note(message, at_s)
    return watched


def pinged(watched: Watched, now_s: float) -> Watched:
    watched.note(Ping(), now_s)
    return watched


def test_it_holds_what_it_claimed_until_that_is_settled() -> None:
    watched = worker((1, Holding("a", 1)), (2, Publishing("a", 1)), (3, Holding("b", 4)), (4, Settled("a", 1)))
    assert [(held.job_id, held.fence, held.publishing) for held in watched.held.values()] == [("b", 4, False)]
    assert watched.proved


def test_a_drawing_that_makes_no_step_is_to_blame() -> None:
    watched = worker((0, Holding("a", 1)), (5, Publishing("a", 1)), (5, Holding("b", 1)), (9, Step("b", 1)))
    assert pinged(watched, 18).must_die(18, LIMITS) is None
    assert pinged(watched, 19.5).must_die(19.5, LIMITS) == Verdict("job b made no step for 10 s", (watched.held["b", 1],))


def test_of_jobs_that_are_drawn_together_any_may_be_to_blame_and_no_other() -> None:
    together = [(5.0, Holding("b", 1)), (5.0, Holding("c", 2)), (9.0, Step("b", 1)), (9.0, Step("c", 2))]
    watched = worker((0, Holding("a", 1)), (1, Publishing("a", 1)), *together)
    verdict = pinged(watched, 19.5).must_die(19.5, LIMITS)
    assert verdict is not None and verdict.culprits == (watched.held["b", 1], watched.held["c", 2])


def test_an_upload_may_take_longer_than_a_step_but_not_for_ever() -> None:
    watched = worker((0, Holding("a", 1)), (1, Publishing("a", 1)))
    assert pinged(watched, 40).must_die(40, LIMITS) is None
    late_s = 1 + PUBLISH_STEP_LIMIT_S + 1
    verdict = pinged(watched, late_s).must_die(late_s, LIMITS)
    assert verdict is not None and verdict.culprits == (watched.held["a", 1],) and "published" in verdict.reason
    watched.note(Step("a", 1), late_s)
    assert watched.must_die(late_s, LIMITS) is None


def test_the_limit_of_a_job_is_that_of_its_drawing() -> None:
    steps = [(float(second), Step("a", 1)) for second in range(1, 102)]
    watched = worker((0, Holding("a", 1)), *steps)
    assert watched.must_die(101, LIMITS) == Verdict("job a has been drawn for 100 s", (watched.held["a", 1],))
    assert worker((0, Holding("a", 1)), *steps, (101, Publishing("a", 1))).must_die(101, LIMITS) is None


@pytest.mark.parametrize(("ready", "now_s", "reason"), [(True, 21, "no pulse"), (False, 31, "not ready")])
def test_a_worker_that_is_silent_may_have_died_over_any_of_its_jobs(ready: bool, now_s: float, reason: str) -> None:
    watched = worker(ready=ready)
    assert watched.must_die(now_s - 2, LIMITS) is None
    verdict = watched.must_die(now_s, LIMITS)
    assert verdict is not None and verdict.reason.startswith(reason) and not verdict.culprits


def test_a_job_that_broke_it_is_taken_away_and_the_others_are_excused() -> None:
    watched = worker((0, Holding("a", 1)), (1, Publishing("a", 1)), (1, Holding("b", 2)))
    broken = watched.note(Broke("b", 2, ends_worker=True), 2)
    assert broken is not None and (broken.job_id, broken.fence) == ("b", 2)
    assert list(watched.held) == [("a", 1)] and watched.excused


def test_what_it_says_of_a_job_it_no_longer_holds_is_nothing() -> None:
    watched = worker((1, Step("gone", 1)), (1, Publishing("gone", 1)), (1, Settled("gone", 1)), (2, Duty(3.0, 1.0)))
    assert watched.note(Broke("gone", 1, ends_worker=False), 2) is None
    assert not watched.held and watched.duty == Duty(3.0, 1.0)


def test_an_excuse_stands_when_a_publisher_breaks_after_it() -> None:
    watched = worker((0, Holding("a", 1)), (1, Publishing("a", 1)), (1, Holding("b", 1)), (1, Holding("c", 1)))
    watched.note(Broke("b", 1, ends_worker=True), 2)
    watched.note(Broke("a", 1, ends_worker=False), 3)
    assert watched.excused and list(watched.held) == [("c", 1)]


def test_a_job_that_was_lost_and_taken_again_is_held_until_its_own_end() -> None:
    watched = worker((0, Holding("a", 1)), (1, Publishing("a", 1)), (2, Holding("a", 2)), (3, Settled("a", 1)))
    assert [(held.fence, held.publishing) for held in watched.held.values()] == [(2, False)]
    assert watched.note(Broke("a", 1, ends_worker=False), 4) is None
    watched.note(Settled("a", 2), 5)
    assert not watched.held
