"""Tokens and what each allows; the file that lists them; and `python -m api.tokens new NAME`, which makes one.

The file is TOML and holds digests only, so that reading it gives nobody a token:

    [tokens.shop]
    sha256 = "<64 hex digits>"
    tenant = "shop"                     # whose jobs it sees; left out: the name of the token
    scopes = ["read", "create"]         # and "admin"; left out: these two
    lanes = ["high", "normal", "low"]   # left out: all three
    max_waiting_jobs = 500              # left out: GRANULE_TOKEN_MAX_WAITING_JOBS
    creates_per_minute = 60             # left out: GRANULE_TOKEN_CREATES_PER_MINUTE
    max_candidates = 1                  # largest num_candidates, 1 to 4; left out: GRANULE_TOKEN_MAX_CANDIDATES
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import Forbidden, SettingsInvalid
from shared.jobs import Lane
from shared.settings import Settings

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
TOKEN_BYTES = 32
FILE_VARIABLE = "GRANULE_API_TOKENS_FILE"


class Scope(StrEnum):
    """What a token is for."""

    READ = "read"
    """Read predictions, models and the account."""
    CREATE = "create"
    """Order, call off and delete predictions."""
    ADMIN = "admin"
    """Both, and with the predictions of every tenant, which it also lists; and the dead letters."""


LaneOfCaller = Literal[Lane.HIGH, Lane.NORMAL, Lane.LOW]
LANES: tuple[LaneOfCaller, ...] = (Lane.HIGH, Lane.NORMAL, Lane.LOW)
DEFAULT_SCOPES = (Scope.READ, Scope.CREATE)


@dataclass(frozen=True, slots=True)
class Token:
    """One caller: what it is called, whose jobs are its own, and how much it may do. None means without bound."""

    name: str
    tenant: str
    scopes: frozenset[Scope] = frozenset(DEFAULT_SCOPES)
    lanes: frozenset[Lane] = frozenset(LANES)
    max_waiting_jobs: int | None = None
    creates_per_minute: int | None = None
    max_candidates: int = 4

    def may(self, scope: Scope) -> bool:
        """Tell whether the token has a scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raises Forbidden when the token has not got this scope."""
        if not self.may(scope):
            raise Forbidden(
                f"this needs a token with the scope {scope}; {self.name!r} has {', '.join(sorted(self.scopes))}",
                field="Authorization",
            )

    def owns(self, tenant: str) -> bool:
        """Tell whether the token may see and end the jobs of a tenant."""
        return tenant == self.tenant or Scope.ADMIN in self.scopes


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]


class TokenEntry(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Digest
    tenant: Name | None = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = DEFAULT_SCOPES
    lanes: Annotated[tuple[LaneOfCaller, ...], Field(min_length=1)] = LANES
    max_waiting_jobs: Annotated[int, Field(ge=1)] | None = None
    creates_per_minute: Annotated[int, Field(ge=1)] | None = None
    max_candidates: Annotated[int, Field(ge=1, le=4)] | None = None


class TokenTable(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: dict[Name, TokenEntry]


def digest(token: str) -> bytes:
    """Return the SHA-256 of a token. Tokens are long and random, so a slow hash would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_tokens(path: Path, settings: Settings) -> list[tuple[bytes, Token]]:
    """Read a file of tokens: the digest of each, and what it allows. Limits left out are those of the settings.

    Raises:
        SettingsInvalid: it cannot be read, is no such file, or gives one token to two names; the text says where.
    """
    try:
        table = TokenTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"{FILE_VARIABLE}: {path}: {error}", field=FILE_VARIABLE) from error
    except ValidationError as error:
        # The input is left out of the text: somebody may have written a token where its digest belongs.
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False))
        raise SettingsInvalid(f"{FILE_VARIABLE}: {path}: {found}", field=FILE_VARIABLE) from error
    known = [(bytes.fromhex(entry.sha256), _token(name, entry, settings)) for name, entry in table.tokens.items()]
    if len({value for value, _ in known}) < len(known):
        raise SettingsInvalid(f"{FILE_VARIABLE}: {path}: two names have the same sha256", field=FILE_VARIABLE)
    return known


def _token(name: str, entry: TokenEntry, settings: Settings) -> Token:
    return Token(
        name=name,
        tenant=entry.tenant or name,
        scopes=frozenset(entry.scopes),
        lanes=frozenset(entry.lanes),
        max_waiting_jobs=entry.max_waiting_jobs or settings.token_max_waiting_jobs,
        creates_per_minute=entry.creates_per_minute or settings.token_creates_per_minute,
        max_candidates=entry.max_candidates or settings.token_max_candidates,
    )


def new_entry(name: str, token: str, entry: dict[str, str | int | list[str]]) -> str:
    """Return the lines that make a token known. `entry` holds further keys of `TokenEntry`."""
    lines = [f'[tokens."{name}"]', f'sha256 = "{digest(token).hex()}"']
    for key, value in entry.items():
        shown = value if isinstance(value, int) else f'"{value}"' if isinstance(value, str) else _list(value)
        lines.append(f"{key} = {shown}")
    return "\n".join(lines) + "\n"


def _list(values: list[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a token: the token itself goes to stderr, once, and its entry to stdout, to be appended to the file."""
    parser = argparse.ArgumentParser(prog="python -m api.tokens", description="Make tokens for the API.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make one; its entry goes to stdout: ... new shop >> tokens.toml")
    new.add_argument("name", type=_name, help="1 to 64 letters, digits, . _ and -")
    new.add_argument("--tenant", type=_name, help="whose jobs it sees (the name)")
    new.add_argument("--scopes", nargs="+", choices=list(Scope), help="what it is for (read create)")
    new.add_argument("--lanes", nargs="+", choices=list(LANES), help="lanes it may order in (all)")
    new.add_argument("--max-waiting-jobs", type=_count, help="jobs of its tenant that may wait")
    new.add_argument("--creates-per-minute", type=_count, help="orders it may place in a minute")
    new.add_argument("--max-candidates", type=_count, choices=range(1, 5), help="largest num_candidates it may order")
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    name, token = given.pop("name"), secrets.token_urlsafe(TOKEN_BYTES)
    sys.stderr.write(f"The token, which is kept nowhere: {token}\n")
    sys.stdout.write(f"\n{new_entry(name, token, given)}")
    return 0


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("1 to 64 letters, digits, . _ and -")
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
