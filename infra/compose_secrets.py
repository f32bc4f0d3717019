"""Makes the secret files of docker-compose.yml: `python3 infra/compose_secrets.py [FOLDER]`. Needs nothing but Python.

A file that is there stays as it is. The folder is for its owner only; the files in it are readable, because containers see
them with the mode they have here and run under an id of their own.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "secrets"
FOLDER_MODE = 0o700
FILE_MODE = 0o444


def make_secrets(folder: Path) -> list[str]:
    """Write every secret that is not in the folder yet; return the names of those written.

    The storage server's own file repeats the key pair, so it is made anew whenever one of the pair is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    pair = ("GRANULE_S3_ACCESS_KEY_ID", "GRANULE_S3_SECRET_ACCESS_KEY")
    written = [name for name, value in _new_values().items() if _write(folder / name, value)]
    identities = folder / "s3.json"
    if written and set(pair) & set(written):
        identities.unlink(missing_ok=True)
    key_id, secret = ((folder / name).read_text().strip() for name in pair)
    if _write(identities, _identities(key_id, secret)):
        written.append(identities.name)
    return written


def _new_values() -> Mapping[str, str]:
    return {
        "GRANULE_REDIS_URL": f"redis://:{secrets.token_hex(24)}@redis:6379/0",
        "GRANULE_S3_ACCESS_KEY_ID": secrets.token_hex(10),
        "GRANULE_S3_SECRET_ACCESS_KEY": secrets.token_hex(24),
        "GRANULE_WEBHOOK_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "GRANULE_API_TOKENS": f"shop:{secrets.token_urlsafe(32)}",
        "GRANULE_METRICS_TOKEN": secrets.token_urlsafe(32),
        "grafana_password": secrets.token_urlsafe(18),
    }


def _identities(key_id: str, secret: str) -> str:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": key_id, "secretKey": secret}]
    return json.dumps({"identities": [{"name": "granule", "credentials": credentials, "actions": actions}]}, indent=2)


def _write(file: Path, value: str) -> bool:
    """Write a file that is not there. False: it is."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as stream:
        # No newline at the end: who reads the file as it is would send it along, inside a header.
        stream.write(value)
    file.chmod(FILE_MODE)
    return True


def main() -> int:
    """Make the secrets and say which; values are never printed."""
    parser = argparse.ArgumentParser(prog="python3 infra/compose_secrets.py", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to (default: %(default)s)")
    folder = parser.parse_args().folder
    written = make_secrets(folder)
    sys.stdout.write(f"{folder}: {', '.join(written) or 'everything is there already'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
