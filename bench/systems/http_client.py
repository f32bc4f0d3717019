"""A client of the servers that answer a POST with the picture itself."""

from __future__ import annotations

import base64
import time

import requests

from bench.systems.timing import Busy, Order

TIMEOUT_S = 60
BUSY_STATUSES = (409, 429, 503)


class Client:
    """Posts `{"prompt", "seed"}`, wrapped as each server wants it, to the address of a server's route."""

    def __init__(self, address: str) -> None:
        self._url = address
        self._session = requests.Session()
        self._session.trust_env = False

    def order(self, seed: int) -> Order:
        """Order a picture and take it from the answer.

        Raises:
            Busy: the server takes no order now.
        """
        body: dict[str, object] = {"prompt": "50% red, 50% black", "seed": seed}
        if self._url.endswith("/predictions"):
            body = {"input": body}
        sent_ns = time.monotonic_ns()
        response = self._session.post(self._url, json=body, timeout=TIMEOUT_S)
        if response.status_code in BUSY_STATUSES:
            raise Busy
        response.raise_for_status()
        known_ns = time.monotonic_ns()
        if response.headers["Content-Type"].startswith("application/json"):
            output = response.json()["output"]
            base64.b64decode(output.partition(",")[2], validate=True)
        return Order(seed, sent_ns, None, known_ns, time.monotonic_ns())
