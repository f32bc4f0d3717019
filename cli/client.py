"""The API as the command line calls it: addresses and tokens, answers as JSON, and refusals as sentences."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlsplit

import requests
from requests.auth import AuthBase

from shared.errors import GranuleError, SettingsInvalid
from shared.settings import Settings, load_settings
from shared.wire import Prediction

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0
TRIES = 4
TRY_AGAIN_S = 0.5
PATIENCE_S = 10.0
"""A call that has taken this long is not tried again: what hangs once hangs again."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
DETAIL_MAX_CHARACTERS = 300


class ApiUnreachable(GranuleError):
    """Nothing answered at the API's address, or what did is no Granule."""

    code = "api_unreachable"
    retryable = True


class ApiRefused(GranuleError):
    """The API answered with an error. `status` is HTTP's; `fields` has what in the request is wrong, by its dotted path."""

    def __init__(self, detail: str, *, status: int, code: str, fields: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.fields = dict(fields)


class BearerToken(AuthBase):
    """Sends the token. Without an explicit kind of its own requests would take a password from ~/.netrc instead."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the header on, if there is a token."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Api:
    """One API at `url` (without `/v1` at its end), called with one token.

    Methods raise ApiUnreachable when it does not answer and ApiRefused when it answers with an error.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._auth = BearerToken(token)
        self._session = requests.Session()
        # A machine's proxy is for the world outside it.
        self._session.trust_env = urlsplit(url).hostname not in LOOPBACK

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Read JSON. A failure to answer is tried again for a few seconds: reading changes nothing."""
        return self._again("GET", path, params=dict(query or {}))

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON and read the answer. Tried again like `get`: give an order an `Idempotency-Key`."""
        return self._again("POST", path, json=body, headers=dict(headers or {}))

    def items(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Yield the entries of a list, page after page."""
        asked = dict(query or {})
        while True:
            page = self.get(path, asked)
            yield from page["results"]
            if page["next"] is None:
                return
            # Only the cursor is taken from it: the API may know itself by an address that does not lead there from here.
            asked = dict(parse_qsl(urlsplit(page["next"]).query))

    def probe(self, path: str) -> Any:
        """Read JSON once, whatever the status: the health routes answer 503 with a body that says why."""
        return _json_of(self._send("GET", path))

    def open(self, address: str) -> requests.Response:
        """Open a file by its absolute address, which is its permission: no token goes there. Close the response."""
        if urlsplit(address).scheme not in ("http", "https"):
            raise ApiUnreachable(f"the API gave out an address that is no web address: {address!r}")
        try:
            # An auth of its own keeps ~/.netrc out.
            response = self._session.get(
                address, auth=BearerToken(None), stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            )
        except requests.RequestException as error:
            raise ApiUnreachable(f"the picture at {address} cannot be fetched: {error}") from error
        if not response.ok:
            with response:
                raise _refusal(response)
        return response

    def _again(self, method: str, path: str, **options: Any) -> Any:
        started_s = time.monotonic()
        for left in reversed(range(TRIES)):
            last = left == 0 or time.monotonic() - started_s > PATIENCE_S
            try:
                response = self._send(method, path, **options)
                if response.status_code != requests.codes.service_unavailable or last:
                    break
            except ApiUnreachable:
                if last or time.monotonic() - started_s > PATIENCE_S:
                    raise
            time.sleep(TRY_AGAIN_S * 2 ** (TRIES - 1 - left))
        if not response.ok:
            raise _refusal(response)
        return _json_of(response)

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            # Followed, a redirect would turn an order into a look at the list.
            response = self._session.request(
                method, self.url + path, auth=self._auth, timeout=timeout, allow_redirects=False, **options
            )
        except (requests.RequestException, ValueError) as error:
            raise ApiUnreachable(
                f"no API answers at {self.url} ({_reason(error)}). Start one with ./granule up, or name another with --url "
                "or GRANULE_CLIENT_URL"
            ) from error
        if response.is_redirect:
            raise ApiUnreachable(f"{self.url} sends to {response.headers['Location']}: name that address with --url")
        return response


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which API is meant."""
    group = parser.add_argument_group("which API")
    group.add_argument("--url", help="its address; unset: GRANULE_CLIENT_URL, else the one on this machine")
    group.add_argument("--token", help="unset: GRANULE_CLIENT_TOKEN, which other users of this machine cannot see")


def connect(arguments: argparse.Namespace) -> Api:
    """Return the API that the options, else the settings, name. Nothing is sent yet.

    Raises:
        SettingsInvalid: the address is none, or a setting cannot work.
    """
    settings = load_settings()
    url = str(arguments.url or settings.client_url or _own_url(settings)).rstrip("/").removesuffix("/v1")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SettingsInvalid(f"{url!r} is no address of an API, such as https://tiles.example.com", field="url")
    token = arguments.token or (settings.client_token.get_secret_value() if settings.client_token else None)
    if token and not (token.isascii() and token.isprintable()):
        raise SettingsInvalid("the token holds characters that no token has", field="token")
    return Api(url, token)


def prediction_path(prediction_id: str) -> str:
    """Return the path of a prediction whatever its id holds: a stray ? or / must not lead elsewhere."""
    return f"/v1/predictions/{quote(prediction_id, safe='')}"


def read_prediction(value: Any) -> Prediction:
    """Return what the API sent as a prediction. Raises ApiUnreachable when it is none, or one of another version."""
    missing = Prediction.__required_keys__ - set(value if isinstance(value, Mapping) else ())
    if missing:
        raise ApiUnreachable(f"what answers is no Granule API, or one of another version: {min(missing)} is missing")
    return cast(Prediction, value)


def _own_url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ANY_ADDRESS else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port or 8000}"


def _refusal(response: requests.Response) -> GranuleError:
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem["code"])
        fields = {str(item["field"]): str(item["description"]) for item in problem.get("invalid_fields", [])}
    except (ValueError, KeyError, TypeError):
        text = " ".join(response.text[:DETAIL_MAX_CHARACTERS].split())
        return ApiUnreachable(f"{response.url} answered {response.status_code}, and not as Granule's API does: {text}")
    return ApiRefused(detail, status=response.status_code, code=code, fields=fields)


def _json_of(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ApiUnreachable(f"what answers at {response.url} is no Granule API: its answer is no JSON") from error


def _reason(error: Exception) -> str:
    """Name the last cause: requests wraps three errors around `Connection refused`."""
    text = str(error)
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    for known in ("Connection refused", "Name or service not known", "CERTIFICATE_VERIFY_FAILED", "No route to host"):
        if known in text:
            return known.lower().replace("_", " ")
    return text[:DETAIL_MAX_CHARACTERS]
