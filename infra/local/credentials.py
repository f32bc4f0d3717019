"""The local stack's own passwords and keys: made at random once, kept in the data folder, readable by their owner only."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from infra.local.private_file import write_private
from shared.errors import SettingsInvalid


@dataclass(frozen=True)
class Credentials:
    """What the parts of one local stack trust each other by. `webhook_secret` is `whsec_` and 32 bytes in standard base64."""

    redis_password: str
    s3_access_key_id: str
    s3_secret_access_key: str
    webhook_secret: str


def new_credentials() -> Credentials:
    """Make credentials nobody can guess."""
    return Credentials(
        redis_password=secrets.token_hex(24),
        s3_access_key_id=secrets.token_hex(10),
        s3_secret_access_key=secrets.token_hex(24),
        webhook_secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    )


def load_credentials(file: Path) -> Credentials:
    """Read the file, or make it if there is none.

    Raises:
        SettingsInvalid: the file holds something else.
    """
    if not file.exists():
        write_private(file, json.dumps(asdict(new_credentials()), indent=2) + "\n")
    try:
        values = json.loads(file.read_text())
        credentials = Credentials(**{field.name: str(values[field.name]) for field in fields(Credentials)})
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsInvalid(f"{file} is damaged; remove it and new keys are made", field="DATA_DIR") from error
    file.chmod(0o600)
    return credentials
