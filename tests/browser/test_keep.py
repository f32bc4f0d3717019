"""Tiles that are there already: found, looked at, compared, exported, shared and deleted."""

from __future__ import annotations

import csv
import io
import re
import time
import zipfile
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Server, Visitor, visiting

MIXES = ("60% orange, 40% yellow", "100% emerald", "50% pink, 50% gray")


@pytest.fixture(scope="module")
def tiles(server: Server) -> dict[str, str]:
    """The ids of three finished tiles by their mix, all of the same seed."""
    ids = {}
    for mix in MIXES:
        body = {"version": "granule/rubber-tile-mini", "input": {"prompt": mix, "seed": 9}}
        made = httpx.post(f"{server.url}/v1/predictions", json=body, headers={"Prefer": "wait=30"}).json()
        ids[mix] = made["id"]
    deadline_s = time.monotonic() + 30
    while any(httpx.get(f"{server.url}/v1/predictions/{id}").json()["status"] != "succeeded" for id in ids.values()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    return ids


@pytest.fixture
def keeper(browser: Browser, server: Server, tiles: dict[str, str]) -> Iterator[Visitor]:
    with visiting(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as visitor:
        visitor.open()
        yield visitor


def test_tiles_are_found_by_words_colour_and_status(keeper: Visitor) -> None:
    page = keeper.page
    cards = page.locator(".card:visible")
    expect(cards).to_have_count(3)
    page.get_by_label("Search mixes, seeds, ids").fill("EMER")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("100% emerald")
    page.get_by_label("Search mixes, seeds, ids").fill("")
    page.get_by_label("Colour", exact=True).select_option("Yellow")
    expect(cards).to_contain_text("60% orange, 40% yellow")
    page.get_by_label("Status").select_option("Failed")
    expect(page.get_by_text("No tile fits these filters.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(cards).to_have_count(3)


def test_a_shared_link_opens_its_tile_and_says_when_it_is_gone(keeper: Visitor, tiles: dict[str, str]) -> None:
    page = keeper.page
    page.get_by_role("button", name="Look at 100% emerald").click()
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{keeper.url}/#tile={tiles['100% emerald']}"
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("dialog").get_by_role("heading", name="100% emerald")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    keeper.expected = ("404",)
    page.evaluate("location.hash = 'tile=nothere'")
    expect(page.get_by_text("This tile is not here any more.")).to_be_visible()


def test_a_tile_is_zoomed_laid_as_a_floor_and_left_for_the_next(keeper: Visitor) -> None:
    page = keeper.page
    page.locator(".card-open").first.click()
    viewer = page.get_by_role("dialog")
    title = viewer.get_by_role("heading", level=2).inner_text()
    viewer.get_by_role("button", name="Zoom in").click()
    assert "scale(1.4)" in (viewer.locator(".stage img").get_attribute("style") or "")
    viewer.get_by_role("button", name="Floor").click()
    expect(viewer.locator(".floor")).to_be_visible()
    viewer.get_by_role("button", name="Older tile").click()
    expect(viewer.get_by_role("heading", level=2)).not_to_have_text(title)
    viewer.get_by_role("button", name="Load into form").click()
    assert page.get_by_label("As text").input_value() in MIXES


def test_two_tiles_are_compared_and_zoomed_together(keeper: Visitor) -> None:
    page = keeper.page
    page.get_by_role("button", name="Select", exact=True).click()
    page.get_by_role("checkbox", name="Select 100% emerald").check()
    expect(page.get_by_role("button", name="Compare")).to_be_disabled()
    page.get_by_role("checkbox", name="Select 50% pink").check()
    page.get_by_role("button", name="Compare").click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("heading", name="Compare · Same seed")).to_be_visible()
    viewer.get_by_role("button", name="Zoom in").click()
    assert all(
        "scale(1.4)" in style
        for style in viewer.locator(".stage img").evaluate_all("all => all.map((one) => one.style.transform)")
    )


def test_chosen_tiles_are_exported_with_their_provenance(keeper: Visitor, tiles: dict[str, str]) -> None:
    page = keeper.page
    page.get_by_role("button", name="Select", exact=True).click()
    for mix in MIXES[:2]:
        page.get_by_role("checkbox", name=f"Select {mix}").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        rows = list(csv.DictReader(io.StringIO(archive.read("tiles.csv").decode("utf-8-sig"))))
        assert all(archive.read(row["file"]).startswith(b"\x89PNG") for row in rows)
    assert len(names) == 3 and all(re.match(r"\d{4}-\d\d-\d\d_.*_seed9\.png", row["file"]) for row in rows)
    assert {row["id"] for row in rows} == {tiles[mix] for mix in MIXES[:2]}
    assert all("stand-in" in row["provenance"] and row["seed"] == "9" for row in rows)


def test_a_tile_is_deleted_after_a_question(keeper: Visitor, server: Server, tiles: dict[str, str]) -> None:
    page = keeper.page
    page.get_by_role("button", name="Look at 50% pink").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name=re.compile("for good")).get_by_role("button", name="Delete").click()
    expect(page.get_by_text("1 tile deleted.")).to_be_visible()
    expect(page.locator(".card")).to_have_count(2)
    assert httpx.get(f"{server.url}/v1/predictions/{tiles[MIXES[2]]}").json()["data_removed"] is True
