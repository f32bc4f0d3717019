"""Finished pictures in S3-compatible storage: the workers write them, the API streams them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody

from shared.errors import InputInvalid, NotFound, StorageUnavailable
from shared.metrics import S3_ERRORS
from shared.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CACHE_CONTROL = "public, max-age=31536000, immutable"
METADATA_MAX_BYTES = 1_800
CHUNK_BYTES = 65_536
SIGNED_FOR_S = 300


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object opened for reading. `content_range` is set when only a part was asked for; `body` is None after a HEAD."""

    content_type: str
    size_bytes: int
    etag: str
    content_range: str | None
    body: StreamingBody | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of 64 KiB, then close the connection."""
        if self.body is not None:
            with closing(self.body) as body:
                yield from body.iter_chunks(CHUNK_BYTES)


class Storage:
    """One bucket. Safe to share between threads. All methods raise StorageUnavailable when the server does not answer."""

    def __init__(self, client: S3Client, bucket: str, *, signer: S3Client | None = None) -> None:
        """`signer` has the address by which callers reach the server; None: they do not."""
        self._client = client
        self._bucket = bucket
        self._signer = signer

    def put(self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]) -> None:
        """Store an object; when this returns, it is there.

        `metadata` values may be any text; S3 carries them as headers, so they are escaped to ASCII and cut to fit the 2 KB
        that it allows in all.
        """
        with _answering():
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType=content_type,
                CacheControl=CACHE_CONTROL,
                Metadata=_headers(metadata),
            )

    def open(self, key: str, *, byte_range: str | None = None) -> StoredObject:
        """Open an object, or the part of it that an HTTP `Range` header names.

        Raises:
            NotFound: there is no such object.
            InputInvalid: the range cannot be satisfied.
        """
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
        if byte_range is not None:
            arguments["Range"] = byte_range
        with _answering():
            reply = self._client.get_object(**arguments)
        return StoredObject(
            reply["ContentType"], reply["ContentLength"], reply["ETag"], reply.get("ContentRange"), reply["Body"]
        )

    def head(self, key: str) -> StoredObject:
        """Look at an object without reading it. Raises NotFound."""
        with _answering():
            reply = self._client.head_object(Bucket=self._bucket, Key=key)
        return StoredObject(reply["ContentType"], reply["ContentLength"], reply["ETag"], None, None)

    def signed_url(self, key: str, *, content_type: str, content_disposition: str) -> str | None:
        """Return an address at which anybody can fetch an object for five minutes; None: callers do not reach the server.

        Nobody is asked: the object need not be there.
        """
        if self._signer is None:
            return None
        with _answering():
            return self._signer.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": key,
                    "ResponseContentType": content_type,
                    "ResponseContentDisposition": content_disposition,
                },
                ExpiresIn=SIGNED_FOR_S,
            )

    def copy(self, source_key: str, key: str) -> None:
        """Store an object's content, type and metadata under a second key, inside the server. Raises NotFound."""
        with _answering():
            self._client.copy_object(Bucket=self._bucket, Key=key, CopySource={"Bucket": self._bucket, "Key": source_key})

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with _answering():
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix`."""
        with _answering():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def create_bucket(self) -> None:
        """Make the bucket if it is not there yet."""
        with _answering():
            if self._bucket not in [bucket["Name"] for bucket in self._client.list_buckets()["Buckets"]]:
                self._client.create_bucket(Bucket=self._bucket)


def connect_storage(settings: Settings) -> Storage:
    """Build the client for the configured server. Nothing is sent yet.

    The time-outs bound one call to about 18 seconds; boto3's own defaults wait three minutes for a server that hangs.
    """
    redirects = settings.s3_redirect_url
    signer = None if redirects is None else _connect(settings, redirects)
    return Storage(_connect(settings, settings.s3_endpoint_url), settings.s3_bucket, signer=signer)


def _connect(settings: Settings, endpoint_url: str | None) -> S3Client:
    key_id, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=key_id.get_secret_value() if key_id else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.s3_addressing_style},
            connect_timeout=2,
            read_timeout=5,
            retries={"mode": "standard", "max_attempts": 3},
            max_pool_connections=32,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def outputs_prefix(job_id: str) -> str:
    """Return what the keys of all objects of a job start with, those of attempts that failed included."""
    return f"outputs/{job_id}/"


def attempt_prefix(job_id: str, fence: int) -> str:
    """Return what the keys of all objects of one attempt at a job start with."""
    return f"{outputs_prefix(job_id)}{fence}/"


def output_key(job_id: str, fence: int, index: int, extension: str) -> str:
    """Name the object of one picture of one attempt: no two attempts of a job ever write to the same key."""
    return f"{attempt_prefix(job_id, fence)}{index}.{extension}"


def attempt_of(key: str) -> int:
    """Return the fence of the attempt that an object belongs to; 0 where its key is none that `output_key` makes."""
    attempt = key.split("/")[2]
    return int(attempt) if attempt.isdecimal() else 0


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("404", "NoSuchKey", "NotFound"):
            raise NotFound("no such file") from error
        if code in ("416", "InvalidRange"):
            raise InputInvalid("the range lies outside the file", field="Range") from error
        S3_ERRORS.labels("refused").inc()
        raise StorageUnavailable(f"the object storage refused: {code}") from error
    except BotoCoreError as error:
        S3_ERRORS.labels("unreachable").inc()
        raise StorageUnavailable("the object storage does not answer") from error


def _headers(metadata: Mapping[str, str]) -> dict[str, str]:
    left_bytes = METADATA_MAX_BYTES
    headers = {}
    for name, value in metadata.items():
        escaped = value.encode("ascii", "backslashreplace").decode().replace("\n", " ")[: left_bytes - len(name)]
        headers[name] = escaped
        left_bytes -= len(name) + len(escaped)
    return headers
