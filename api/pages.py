"""Predictions a hundred at a time, newest first, with opaque cursors in both directions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from api.responses import page
from shared.errors import InputInvalid
from shared.job_store import JobStore
from shared.wire import prediction

PAGE_SIZE = 100
CURSOR = re.compile(r"([<>])([0-9]{1,18})")
FILTERS = ("created_after", "created_before", "source", "tenant")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two jobs: the page holds those older, or with `newer` those newer, than the job numbered `seq`."""

    newer: bool
    seq: int

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{'>' if self.newer else '<'}{self.seq}".encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read back what `str` wrote. Raises InputInvalid."""
        try:
            match = CURSOR.fullmatch(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii"))
        except (binascii.Error, ValueError) as error:
            raise InputInvalid("cursor is not one that a page of this list gave out", field="cursor") from error
        if match is None:
            raise InputInvalid("cursor is not one that a page of this list gave out", field="cursor")
        return cls(match[1] == ">", int(match[2]))


def predictions_page(store: JobStore, tenant: str | None, query: Mapping[str, str], *, base_url: str) -> dict[str, Any]:
    """Return one page of a tenant's predictions, or of everybody's with None.

    `query` may have `cursor`, `created_after` (inclusive) and `created_before` (exclusive) as ISO 8601, and `source`
    (`api`, or `web`, which has none); its `tenant` goes into the addresses of the pages around. Queue positions are left
    out: they are part of a single prediction only.

    Raises:
        InputInvalid: one of them has another form.
    """
    cursor = Cursor.parse(query["cursor"]) if "cursor" in query else None
    after_ms, before_ms = _moment_ms(query, "created_after"), _moment_ms(query, "created_before")
    source = query.get("source", "api")
    if source not in ("api", "web"):
        raise InputInvalid("source must be api or web", field="source")
    if source == "web":
        return page([])
    low = None if after_ms is None else store.seq_at(tenant, after_ms) - 1
    high = None if before_ms is None else store.seq_at(tenant, before_ms)
    newer = cursor is not None and cursor.newer
    if cursor is not None and newer:
        low = cursor.seq if low is None else max(low, cursor.seq)
    elif cursor is not None:
        high = cursor.seq if high is None else min(high, cursor.seq)
    jobs = store.list_jobs(tenant, before_seq=high, after_seq=low, oldest=newer, limit=PAGE_SIZE + 1)
    more = len(jobs) > PAGE_SIZE
    jobs = jobs[1:] if more and newer else jobs[:PAGE_SIZE]

    def url(*, newer: bool, seq: int) -> str:
        filters = {name: query[name] for name in FILTERS if name in query}
        return f"{base_url}/v1/predictions?{urlencode({'cursor': str(Cursor(newer, seq)), **filters})}"

    return page(
        [prediction(job, base_url=base_url) for job in jobs],
        next_url=url(newer=False, seq=jobs[-1].seq) if jobs and (more or newer) else None,
        previous_url=url(newer=True, seq=jobs[0].seq) if jobs and (more if newer else cursor is not None) else None,
    )


def _moment_ms(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        moment = datetime.fromisoformat(query[name].replace(" ", "+") if "T" in query[name] else query[name])
    except ValueError as error:
        raise InputInvalid(f"{name} must be a date and time such as 2026-01-31T12:00:00Z", field=name) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
