"""How the pages and what they load are served."""

import gzip
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.server import create_app
from api.studio import WEB, site
from shared.settings import REPOSITORY, Settings

LINES_MAX = 350


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings(models_dir=REPOSITORY / "models")).test_client()


def assets_of(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(assets/[^"]+)"', page)


@pytest.mark.parametrize("path", ["/", "/ops"])
def test_a_page_lets_nothing_run_but_its_own_files(client: FlaskClient, path: str) -> None:
    found = client.get(path)
    policy = found.headers["Content-Security-Policy"]
    assert found.status_code == 200 and found.content_type == "text/html; charset=utf-8"
    assert "script-src 'self';" in policy and "unsafe" not in policy and "default-src 'none'" in policy
    assert found.headers["Cache-Control"] == "no-cache"
    # Nothing that the policy would stop, and nothing from anywhere else.
    assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son[a-z]+=|https?://", found.text)
    assert client.get(path, headers={"If-None-Match": found.headers["ETag"]}).status_code == 304


def test_what_a_page_loads_is_kept_for_good_under_the_name_of_its_content(client: FlaskClient) -> None:
    addresses = assets_of(client.get("/").text)
    assert len(addresses) >= 6
    for address in addresses:
        found = client.get(f"/{address}")
        assert found.status_code == 200, address
        assert found.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
    script = next(address for address in addresses if address.endswith("studio.js"))
    assert client.get(f"/{script}").content_type == "text/javascript; charset=utf-8"
    other = script.replace(site().digest, "0" * 16)
    assert client.get(f"/{other}").headers["Cache-Control"] == "no-store"


def test_compression_is_for_those_who_ask(client: FlaskClient) -> None:
    address = f"/assets/{site().digest}/js/studio.js"
    plain, packed = client.get(address), client.get(address, headers={"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data == (WEB / "js/studio.js").read_bytes()
    assert packed.headers["ETag"] != plain.headers["ETag"] and packed.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("file", ["studio.html", "js/none.js", "../api/studio.py", "%2e%2e/README.md"])
def test_nothing_else_is_served(client: FlaskClient, file: str) -> None:
    assert client.get(f"/assets/{site().digest}/{file}").status_code == 404


def test_pictures_may_come_from_the_public_address(client: FlaskClient) -> None:
    settings = Settings.model_validate(
        {"models_dir": REPOSITORY / "models", "public_url": "https://tiles.example.com/x", "api_tokens": ("shop:secret",)}
    )
    policy = create_app(settings).test_client().get("/").headers["Content-Security-Policy"]
    assert "img-src 'self' blob: data: https://tiles.example.com;" in policy


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    before = site(tmp_path).digest
    site.cache_clear()
    (tmp_path / "a.js").write_text("2")
    assert site(tmp_path).digest != before


def test_no_file_of_the_pages_is_long() -> None:
    long = {path.name for path in WEB.rglob("*") if path.is_file() and len(path.read_text().splitlines()) > LINES_MAX}
    assert long == set()


def test_a_models_colours_are_listed_with_all_their_spellings(client: FlaskClient) -> None:
    local = {"REMOTE_ADDR": "127.0.0.1"}
    found = client.get("/v1/models/granule/rubber-tile-mini/colors", environ_base=local, base_url="http://localhost")
    colors = {color["code"]: color for color in found.get_json()}
    assert len(colors) == 29
    assert colors["DKGRAY"]["srgb"] == "#42413F" and {"darkgray", "charcoal", "темносерая"} <= set(
        colors["DKGRAY"]["spellings"]
    )
    assert client.get("/v1/models/nobody/none/colors", environ_base=local, base_url="http://localhost").status_code == 404


@pytest.mark.parametrize(
    ("style", "hosts"),
    [("path", ["s3.example.com"]), ("virtual", ["tiles.s3.example.com"]), ("auto", ["s3.example.com", "tiles.s3.example.com"])],
)
def test_the_pages_may_show_what_the_storage_sends_itself(style: str, hosts: list[str]) -> None:
    redirects = {"s3_redirect_url": "https://s3.example.com/", "s3_bucket": "tiles", "s3_addressing_style": style}
    settings = Settings(models_dir=REPOSITORY / "models", **redirects)  # type: ignore[arg-type]
    policy = create_app(settings).test_client().get("/").headers["Content-Security-Policy"]
    for directive in ("img-src 'self' blob: data:", "connect-src 'self'"):
        assert f"{directive}{''.join(f' https://{host}' for host in hosts)};" in policy
