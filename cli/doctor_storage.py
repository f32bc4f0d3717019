"""The doctor on the storage: reachable, the bucket there, an object written, read, read in part and removed, clocks alike."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime

import requests
from botocore.exceptions import BotoCoreError, ClientError

from cli.findings import Finding, ok, warning, wrong
from infra.local.s3_server import s3_client
from shared.errors import GranuleError
from shared.settings import Settings
from shared.storage import Storage, connect_storage

SUBJECT = "s3"
PROBE_PREFIX = "doctor/"
PROBE_BYTES = 4096
CLOCK_WARNING_S, CLOCK_WRONG_S = 60.0, 600.0
TIMEOUT_S = 10.0
DAY_S = 86_400

CURES = {
    "NoSuchBucket": "make it, or correct GRANULE_S3_BUCKET",
    "AccessDenied": "give the key the right to list the bucket and to get, put and delete objects in it",
    "InvalidAccessKeyId": "correct GRANULE_S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct GRANULE_S3_SECRET_ACCESS_KEY, and look at GRANULE_S3_REGION and the clock",
    "AuthorizationHeaderMalformed": "correct GRANULE_S3_REGION",
    "PermanentRedirect": "correct GRANULE_S3_REGION and S3_ENDPOINT_URL",
    "RequestTimeTooSkewed": "set this machine's clock: timedatectl set-ntp true",
}
"""What to do about each of S3's error codes."""
NO_KEYS = "set GRANULE_S3_ACCESS_KEY_ID and GRANULE_S3_SECRET_ACCESS_KEY"


def check_storage(settings: Settings) -> Iterator[Finding]:
    """Ask the server that the settings name, and store one small object for a moment."""
    place = f"bucket {settings.s3_bucket} at {settings.s3_endpoint_url or 'AWS'}"
    try:
        storage = connect_storage(settings)
    except (ValueError, BotoCoreError) as error:
        yield wrong(SUBJECT, f"S3_ENDPOINT_URL cannot be used: {error}", "write http://HOST:PORT or https://HOST")
        return
    yield from _check_clock(settings)
    try:
        storage.keys(PROBE_PREFIX)
        yield ok(SUBJECT, f"{place} can be listed")
        yield _check_object(storage)
        yield from _check_rules(settings)
    except GranuleError as error:
        code = _code_of(error)
        yield wrong(SUBJECT, f"{place}: {error.detail}", CURES.get(code, "start it, or correct S3_ENDPOINT_URL and the keys"))
    except BotoCoreError as error:
        yield wrong(SUBJECT, f"{place}: {error}", NO_KEYS)


def _check_object(storage: Storage) -> Finding:
    key, data = f"{PROBE_PREFIX}{secrets.token_hex(8)}", secrets.token_bytes(PROBE_BYTES)
    started_s = time.perf_counter()
    storage.put(key, data, content_type="application/octet-stream", metadata={"made-by": "granule doctor"})
    try:
        whole = b"".join(storage.open(key).chunks())
        part = b"".join(storage.open(key, byte_range="bytes=16-31").chunks())
    finally:
        storage.delete(key)
    if whole != data or part != data[16:32]:
        return wrong(SUBJECT, "an object reads otherwise than it was written", "look for a proxy or cache between")
    took_ms = (time.perf_counter() - started_s) * 1000
    return ok(SUBJECT, f"an object was written, read, read in part and removed in {took_ms:.0f} ms")


def _check_rules(settings: Settings) -> Iterator[Finding]:
    """Look for rules of the bucket that remove pictures before Granule does."""
    keys = settings.s3_access_key_id, settings.s3_secret_access_key
    key_id, secret = (key.get_secret_value() if key else None for key in keys)
    try:
        with closing(s3_client(settings.s3_endpoint_url, key_id, secret, settings.s3_region)) as client:
            rules = client.get_bucket_lifecycle_configuration(Bucket=settings.s3_bucket)["Rules"]
    except (ClientError, BotoCoreError):
        return  # there are none, or this key may not see them
    for rule in rules:
        days = rule.get("Expiration", {}).get("Days")
        if rule["Status"] == "Enabled" and days is not None and days * DAY_S < settings.retention_s:
            detail = f"a rule of the bucket removes objects after {days} days; GRANULE_RETENTION_S keeps them for longer"
            yield warning(SUBJECT, detail, f"remove the rule, or give it more than {settings.retention_s / DAY_S:.0f} days")


def _check_clock(settings: Settings) -> Iterator[Finding]:
    """S3 refuses what is signed a quarter of an hour off."""
    address = settings.s3_endpoint_url or f"https://s3.{settings.s3_region}.amazonaws.com"
    try:
        moment = requests.head(address, timeout=TIMEOUT_S, allow_redirects=False).headers.get("Date")
        off_s = abs(time.time() - parsedate_to_datetime(moment).timestamp()) if moment else 0.0
    except (requests.RequestException, ValueError):
        return  # the questions that follow say what is the matter
    cure = "set this machine's clock, or the storage's: timedatectl set-ntp true"
    if off_s > CLOCK_WRONG_S:
        yield wrong("clock", f"ours and the storage's are {off_s:.0f} s apart: it will refuse what we sign", cure)
    elif off_s > CLOCK_WARNING_S:
        yield warning("clock", f"ours and the storage's are {off_s:.0f} s apart", cure)


def _code_of(error: GranuleError) -> str:
    cause = error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""
