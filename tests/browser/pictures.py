"""The pictures of the pages in the documentation, taken from a stack that runs: `python -m tests.browser.pictures URL`.

It orders what is missing of a few mixes, waits until they are drawn, and writes `docs/pictures/studio-*.webp`. The page takes
the system's own type face; Inter is taken where it is installed (Debian: fonts-inter).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from shared.settings import REPOSITORY
from tests.browser.conftest import BROWSERS, QUIET

FOLDER = REPOSITORY / "docs/pictures"
MODEL = "granule/rubber-tile-mini"
SEED = 42
MIXES = (
    "50% violet, 50% lilac", "99% gray, 1% yellow", "100% black", "80% dark gray, 20% orange", "70% terracotta, 30% sand",
    "40% turquoise, 40% sky blue, 20% white", "60% blue, 40% white", "45% brown, 35% sand, 20% beige",
    "60% grass green, 40% lime green", "100% grass green", "50% red, 30% black, 20% pearl",
)  # fmt: skip
BUSY = ("50% emerald, 30% yellow, 20% white", "70% dark blue, 30% sky blue", "60% khaki, 40% beige")
DRAW_TIMEOUT_S = 1800
SHOW_TIMEOUT_S = 60
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
SHRUNK_PX = 1100
QUALITY = 82


def main() -> None:
    """Take all pictures from the stack at the address given."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.pictures", description="Takes the pictures of the pages.")
    parser.add_argument("url", help="address of a running stack, such as http://127.0.0.1:8000")
    url = parser.parse_args().url.rstrip("/")
    with httpx.Client(base_url=url, timeout=30) as client:
        draw(client)
        path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, "--no-sandbox"])
            take_all(browser, client, url)
            browser.close()


def draw(client: httpx.Client) -> None:
    """Order the mixes that are not there yet, and wait for all."""
    known = {one["input"].get("prompt"): one for one in client.get("/v1/predictions").json()["results"]}
    for mix in MIXES:
        if known.get(mix, {}).get("status") not in ("starting", "processing", "succeeded"):
            order(client, mix)
    deadline_s = time.monotonic() + DRAW_TIMEOUT_S
    while any(one["status"] in ("starting", "processing") for one in client.get("/v1/predictions").json()["results"]):
        if time.monotonic() > deadline_s:
            sys.exit("the tiles were not drawn in time")
        time.sleep(1)


def order(client: httpx.Client, mix: str) -> Any:
    """Order one tile; those that keep the workers busy get another seed every time, or a stored picture would answer."""
    seed = int(time.time()) if mix in BUSY else SEED
    made = client.post("/v1/predictions", json={"version": MODEL, "input": {"prompt": mix, "seed": seed}})
    return made.raise_for_status().json()


def take_all(browser: Browser, client: httpx.Client, url: str) -> None:
    """Take the pictures one after the other; the first ones with a tile that is being drawn and two that wait."""
    busy = [order(client, mix) for mix in BUSY]
    while client.get(f"/v1/predictions/{busy[0]['id']}").json()["progress"]["step"] < 1:
        time.sleep(0.2)
    take(browser, f"{url}/ops", "ops", settle)
    take(browser, f"{url}/", "light", settle)
    for prediction in busy:
        client.delete(f"/v1/predictions/{prediction['id']}")
    take(browser, f"{url}/", "dark", open_first, scheme="dark")
    take(browser, f"{url}/", "phone", settle, size=PHONE, language="ru-RU")


def take(
    browser: Browser,
    url: str,
    name: str,
    prepare: Callable[[Page], None],
    *,
    scheme: Any = "light",
    size: Any = WIDE,
    language: str = "en-GB",
) -> None:
    """Open an address, prepare the page and write what it shows."""
    context = browser.new_context(
        viewport=size, color_scheme=scheme, locale=language, device_scale_factor=2, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    prepare(page)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        width = min(SHRUNK_PX, size["width"])
        small = shot.convert("RGB").resize((width, width * shot.height // shot.width), Image.Resampling.LANCZOS)
    small.save(target(name), quality=QUALITY, method=6)
    context.close()


def target(name: str) -> Path:
    """Where the picture of that name lies."""
    return FOLDER / f"studio-{name}.webp"


def settle(page: Page) -> None:
    """Wait until all that is to be seen is there."""
    page.wait_for_timeout(2500)
    seen = (
        "[...document.images].every((image) => !image.matches('.arriving') || image.getBoundingClientRect().top > innerHeight)"
    )
    deadline_s = time.monotonic() + SHOW_TIMEOUT_S
    while not page.evaluate(seen) and time.monotonic() < deadline_s:
        page.wait_for_timeout(200)
    page.wait_for_timeout(600)  # they fade in


def open_first(page: Page) -> None:
    """Look at the tile of the documentation's own mix."""
    page.get_by_role("button", name="Look at 50% red, 30% black, 20% pearl").first.click()
    settle(page)


if __name__ == "__main__":
    main()
