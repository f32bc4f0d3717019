"""A client of Granule's API."""

from __future__ import annotations

import time
from typing import Any

import requests

from bench.systems.timing import Order

HOLD = {"Prefer": "wait=55"}
TIMEOUT_S = 60
POLL_S = 0.02
MODEL = "granule/rubber-tile-mini"


class Client:
    """Orders pictures over HTTP and waits for each as an official client does: the create is held until it is done."""

    def __init__(self, address: str) -> None:
        self._url = f"{address}/v1/predictions"
        self._session = requests.Session()
        self._session.trust_env = False

    def order(self, seed: int) -> Order:
        """Order a picture, wait for it and fetch it."""
        sent_ns = time.monotonic_ns()
        made = self._create(seed, HOLD)
        known_ns = time.monotonic_ns()
        self._session.get(made["output"], timeout=TIMEOUT_S).raise_for_status()
        return Order(seed, sent_ns, None, known_ns, time.monotonic_ns())

    def order_and_poll(self, seed: int) -> tuple[Order, list[int]]:
        """Order a picture without being held, and ask for it until it is done; also how long each question took, in ns."""
        sent_ns = time.monotonic_ns()
        made = self._create(seed, {})
        accepted_ns = time.monotonic_ns()
        polls_ns = []
        while made["status"] in ("starting", "processing"):
            time.sleep(POLL_S)
            asked_ns = time.monotonic_ns()
            made = self._session.get(made["urls"]["get"], timeout=TIMEOUT_S).json()
            polls_ns.append(time.monotonic_ns() - asked_ns)
        known_ns = time.monotonic_ns()
        self._session.get(made["output"], timeout=TIMEOUT_S).raise_for_status()
        return Order(seed, sent_ns, accepted_ns, known_ns, time.monotonic_ns()), polls_ns

    def _create(self, seed: int, headers: dict[str, str]) -> Any:
        body = {"version": MODEL, "input": {"prompt": "50% red, 50% black", "seed": seed}}
        response = self._session.post(self._url, json=body, headers=headers, timeout=TIMEOUT_S)
        response.raise_for_status()
        return response.json()
