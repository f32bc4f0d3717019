"""A tile is ordered, watched and called off."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Request, expect

from shared.errors import PromptInvalid
from shared.manifest import load_catalog
from shared.prompts import parse_prompt
from shared.settings import REPOSITORY
from tests.browser.conftest import Server, Visitor

PAGE_MAX_BYTES = 150_000


def write_mix(page: Page, text: str) -> None:
    page.get_by_label("As text").fill(text)


def order(page: Page) -> None:
    page.get_by_role("button", name="Render tile").click()


def test_the_first_click_gives_a_tile_and_the_page_is_light(visitor: Visitor) -> None:
    weights: list[int] = []

    def weigh(request: Request) -> None:
        response = request.response()
        if response is not None and "/assets/" in request.url:
            weights.append(len(response.body()))

    visitor.page.on("requestfinished", weigh)
    page = visitor.open()
    order(page)
    card = page.locator(".card").first
    expect(card).to_have_attribute("data-standing", "succeeded")
    picture = card.locator(".card-picture > img:not(.arriving)")
    expect(picture).to_be_visible()
    expect(picture).to_have_attribute("src", re.compile(r"_thumb\.webp$"))
    assert sum(weights) + len(page.request.get(visitor.url).body()) < PAGE_MAX_BYTES

    card.get_by_role("button").first.click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("row", name=re.compile("Red.*50%"))).to_be_visible()
    expect(viewer.get_by_text("Colour error")).to_be_visible()
    with page.expect_download() as download:
        viewer.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_50red-30black-20pearl_seed\d+\.png", download.value.suggested_filename)
    viewer.get_by_text("Order this by program").click()
    expect(viewer.locator("pre").last).to_contain_text("curl http://127.0.0.1")


def test_what_a_tile_is_about_to_become_is_shown_while_it_is_drawn(visitor: Visitor) -> None:
    page = visitor.open()
    write_mix(page, "100% lilac, 6 s a step")
    order(page)
    card = page.locator(".card").first
    expect(card).to_have_attribute("data-standing", "processing")
    shown = card.locator(".preview img")
    expect(shown).to_be_visible()
    assert shown.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [128, 128]
    card.get_by_role("button").first.click()
    viewer = page.get_by_role("dialog")
    expect(viewer.locator(".preview img")).to_be_visible()
    viewer.get_by_role("button", name="Call off").click()
    expect(viewer.locator(".standing.canceled")).to_be_visible()
    expect(viewer.locator(".preview img")).to_have_count(0)


def test_nobody_looks_where_the_preview_is_switched_off(visitor: Visitor) -> None:
    page = visitor.open()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/previews/" in request.url else None)
    page.get_by_text("More options").click()
    page.get_by_role("switch", name="Live preview").uncheck()
    order(page)
    expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
    assert asked == []


def test_a_locked_seed_gives_the_same_order_again(visitor: Visitor) -> None:
    page = visitor.open()
    page.get_by_role("spinbutton", name="Seed").fill("4711")
    page.get_by_role("button", name="Keep this seed").click()
    write_mix(page, "60% blue, 40% white")
    order(page)
    expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
    expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("4711")
    page.reload()
    expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("4711")
    expect(page.get_by_label("As text")).to_have_value("60% blue, 40% white")


def test_a_wrong_mix_is_complained_about_at_the_field_and_not_sent(visitor: Visitor) -> None:
    page = visitor.open()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    write_mix(page, "50% red, 40% black")
    expect(page.get_by_text("The shares make 90%. 10% is missing.")).to_be_visible()
    expect(page.get_by_label("As text")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Render tile").click(force=True)  # it says that it is disabled, and says why when pressed
    expect(page.locator(".order-status")).to_contain_text("not ready")
    assert sent == []
    write_mix(page, "50% red, 50% navy")
    page.locator("#mix-remarks").get_by_role("button", name="Dark blue").click()
    expect(page.get_by_label("As text")).to_have_value("50% red, 50% dark blue")


def test_what_only_the_server_can_refuse_stands_at_the_field_too(visitor: Visitor) -> None:
    visitor.expected = ("422",)
    page = visitor.open()
    write_mix(page, "100% red, <s0>")
    order(page)
    expect(page.get_by_text("prompt holds <s0>, a token of the model itself")).to_be_visible()
    expect(page.get_by_label("As text")).to_have_attribute("aria-invalid", "true")


def test_sliders_locks_and_swatches_always_make_a_hundred(visitor: Visitor) -> None:
    page = visitor.open()
    shares = page.locator("input.share")

    def values() -> list[float]:
        return [float(text) for text in shares.evaluate_all("inputs => inputs.map((input) => input.value)")]

    page.get_by_role("button", name="Lock the share of Pearl").click()
    page.get_by_role("slider", name="Share of Red in percent").fill("72")
    assert values() == [72, 8, 20]
    page.locator(".palette").get_by_role("button", name="Sky blue").click()
    assert sum(values()) == 100 and values()[2] == 20 and len(values()) == 4
    page.get_by_role("button", name="Take Red out").click()
    assert sum(values()) == 100 and len(values()) == 3
    page.get_by_role("slider", name="Share of Black in percent").focus()
    page.keyboard.press("ArrowRight")
    assert sum(values()) == 100
    written = page.get_by_label("As text").input_value()
    named = zip(values(), ["black", "pearl", "sky blue"], strict=True)
    assert written == ", ".join(f"{value:g}% {name}" for value, name in named)


PROMPTS = [
    "50% red, 30% black, 20% pearl", "12,5% red,87,5% blue", "５０％ red; 50 % BLACK", "красная",
    "50% красного, 50% тёмно-синий", "33.3% red, 33.3% blue, 33.3% white", "33% red, 33% blue, 33% white",
    "50% red, 50% RED", "0% red, 100% black", "150% red",
    "50%", "50% red 50% black", "", " , ; ", "70% DKGREEN, 30% dark_gray", "top view, 100% sand", "-5% red, 105% black",
]  # fmt: skip


def test_the_page_reads_a_mix_as_the_server_does(visitor: Visitor) -> None:
    page = visitor.open()
    read = page.evaluate(
        """async (prompts) => {
            const base = document.querySelector("script[type=module]").src.replace("studio.js", "");
            const [{ Palette }, { readMix }] = await Promise.all([import(base + "palette.js"), import(base + "mix.js")]);
            const colors = await (await fetch("v1/models/granule/rubber-tile-mini/colors")).json();
            const palette = new Palette(colors, "en");
            return prompts.map((prompt) => {
                const { parts, errors } = readMix(prompt, palette);
                return errors.length ? null : parts.map((part) => [part.name, part.share]);
            });
        }""",
        PROMPTS,
    )
    manifest = load_catalog(REPOSITORY / "models").by_slug("granule/rubber-tile-mini")
    for prompt, found in zip(PROMPTS, read, strict=True):
        try:
            mix = parse_prompt(prompt, manifest).mix
        except PromptInvalid:
            assert found is None, prompt
            continue
        assert found == [[part.name, part.share] for part in (mix.parts if mix else ())], prompt


def test_a_tile_is_called_off_while_it_is_drawn(visitor: Visitor) -> None:
    page = visitor.open()
    write_mix(page, "100% sand, 2 s a step")
    order(page)
    card = page.locator(".card").first
    expect(card).to_have_attribute("data-standing", "processing")
    expect(card.get_by_text(re.compile("step [1-4] of"))).to_be_visible()
    card.get_by_role("button", name="Call off").click()
    expect(card).to_have_attribute("data-standing", "canceled")
    expect(card.get_by_role("button", name="Order again")).to_be_visible()


def test_many_are_ordered_from_a_list_and_from_presets(visitor: Visitor) -> None:
    page = visitor.open()
    cards = page.locator(".card")
    expect(page.locator(".grid")).to_have_attribute("aria-busy", "false")
    before = cards.count()
    page.get_by_role("button", name="Presets and batch").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Or paste mixes").fill("50% lilac, 50% white\n50% violet, 40% white")
    expect(dialog.get_by_text("Line 2: The shares make 90%. 10% is missing.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Order 1 tile")).to_be_disabled()
    dialog.get_by_label("Or paste mixes").fill("50% lilac, 50% white\n50% violet, 50% white")
    dialog.get_by_role("checkbox", name="Terracotta").first.check()
    dialog.get_by_role("button", name="Order 3 tiles").click()
    expect(cards).to_have_count(before + 3)
    for at in range(3):
        expect(cards.nth(at)).to_have_attribute("data-standing", "succeeded")


@pytest.mark.parametrize("streams", [True, False])
def test_an_order_is_followed_across_a_restart_of_the_api(visitor: Visitor, server: Server, streams: bool) -> None:
    visitor.expected = ("Failed to load resource", "net::ERR")
    if not streams:
        visitor.page.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    page = visitor.open()
    write_mix(page, f"{70 + streams}% khaki, {30 - streams}% beige, 0.8 s a step")
    order(page)
    card = page.locator(".card").first
    expect(card).to_have_attribute("data-standing", "processing")
    server.stop()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    server.start()
    expect(card).to_have_attribute("data-standing", "succeeded")
    expect(page.get_by_text("The server does not answer.")).to_be_hidden()
