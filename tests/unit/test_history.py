"""The history checker must see what is wrong: a good history passes, and every way to spoil it is found by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.history import Accepted, Delivery, Ending, Happening, Record, Seen, Told, Violation, check

KEY = "outputs/a/1/0.png"
GOOD_HISTORY: list[Happening] = [
    Accepted("k1", "a"),
    Accepted("k1", "a"),
    Accepted("k2", "b"),
    Seen("a", "starting"),
    Seen("a", "processing"),
    Seen("a", "starting"),  # given back by a worker that died
    Told("m1", "a", "succeeded", "body", 500),
    Told("m1", "a", "succeeded", "body", None),
    Told("m1", "a", "succeeded", "body", 200),
    Seen("a", "succeeded", "aa"),
    Seen("b", "canceled"),
]
GOOD_ENDING = Ending(
    records={"a": Record("succeeded", {KEY: "aa"}), "b": Record("canceled")},
    objects={KEY: "aa", "elsewhere/x": "xx"},
    deliveries=(Delivery("m1", "a", "completed", "delivered"),),
    webhooks=frozenset({"a"}),
)


def kinds(violations: list[Violation]) -> set[str]:
    return {violation.kind for violation in violations}


def test_a_good_history_passes() -> None:
    assert check(GOOD_HISTORY, GOOD_ENDING) == []


def test_a_delivery_that_nobody_took_may_end_dead() -> None:
    history = [h for h in GOOD_HISTORY if not (isinstance(h, Told) and h.answer == 200)]
    ending = replace(GOOD_ENDING, deliveries=(Delivery("m1", "a", "completed", "dead"),))
    assert check(history, ending) == []


@pytest.mark.parametrize(
    ("kind", "added"),
    [
        ("lost", Accepted("k3", "c")),
        ("lost", Seen("c", "failed")),
        ("doubled", Accepted("k2", "a")),
        ("two ends", Seen("a", "failed")),
        ("two ends", Told("m1", "a", "canceled", "body", 200)),
        ("undone", Seen("a", "processing")),
        ("undone", Seen("b", "succeeded")),
        ("wrong output", Seen("a", "succeeded", "bb")),
        ("untrue delivery", Told("m1", "a", "succeeded", "another body", 200)),
        ("untrue delivery", Told("m2", "a", "succeeded", "body", 200)),
    ],
)
def test_what_clients_must_not_be_told(kind: str, added: Happening) -> None:
    assert kind in kinds(check([*GOOD_HISTORY, added], GOOD_ENDING))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lost", {"records": {"a": GOOD_ENDING.records["a"]}}),
        ("stuck", {"records": {**GOOD_ENDING.records, "b": Record("queued")}}),
        ("stuck", {"records": {**GOOD_ENDING.records, "unacknowledged": Record("running")}}),
        ("two ends", {"records": {**GOOD_ENDING.records, "b": Record("failed")}}),
        ("no output", {"objects": {}}),
        ("no output", {"records": {**GOOD_ENDING.records, "a": Record("succeeded")}}),
        ("wrong output", {"objects": {KEY: "bb"}}),
        ("orphan", {"objects": {KEY: "aa", "outputs/a/2/0.png": "aa"}}),
        ("orphan", {"objects": {KEY: "aa", "outputs/b/1/0.png": "bb"}}),
        ("doubled", {"records": {**GOOD_ENDING.records, "b": Record("canceled", {KEY: "aa"})}}),
        (
            "doubled",
            {
                "records": {**GOOD_ENDING.records, "a": Record("succeeded", {KEY: "aa", "outputs/a/2/0.png": "aa"})},
                "objects": {KEY: "aa", "outputs/a/2/0.png": "aa"},
            },
        ),
        ("undelivered", {"deliveries": (Delivery("m1", "a", "completed", "pending"),)}),
        ("untrue delivery", {"deliveries": (Delivery("m1", "a", "completed", "dead"),)}),
        ("untrue delivery", {"deliveries": (*GOOD_ENDING.deliveries, Delivery("m2", "a", "start", "delivered"))}),
        ("doubled", {"deliveries": (*GOOD_ENDING.deliveries, Delivery("m2", "a", "completed", "dead"))}),
        ("untold", {"deliveries": ()}),
        ("untold", {"webhooks": frozenset({"a", "b"})}),
    ],
)
def test_what_must_not_be_there_at_the_end(kind: str, changes: dict[str, object]) -> None:
    assert kind in kinds(check(GOOD_HISTORY, replace(GOOD_ENDING, **changes)))  # type: ignore[arg-type]
