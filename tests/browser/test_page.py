"""The page as such: languages, sizes, keyboards, themes, tokens, and what keeps people out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from api.tokens import new_entry
from tests.browser.conftest import Server, Visitor, visiting

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def complaints(page: Page, axe: str) -> list[str]:
    """What axe finds against WCAG 2.2 AA."""
    page.evaluate(axe)
    tags = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run({ runOnly: tags })", tags)["violations"]
    return [f"{one['id']}: {json.dumps([node['target'] for node in one['nodes']][:4])}" for one in found]


def test_it_speaks_russian_and_remembers_it(visitor: Visitor) -> None:
    page = visitor.open()
    page.get_by_text("RU", exact=True).click()
    expect(page.get_by_role("button", name="Заказать плитку")).to_be_visible()
    expect(page.get_by_label("Текстом")).to_have_value("50% красный, 30% чёрный, 20% жемчужный")
    assert page.evaluate("document.documentElement.lang") == "ru"
    page.get_by_label("Текстом").fill("50% бирюзовый, 40% песочный")
    expect(page.get_by_text("Не хватает 10 %")).to_be_visible()
    page.get_by_label("Текстом").fill("50% бирюзовый, 50% песочный")
    page.get_by_role("button", name="Заказать плитку").click()
    expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
    page.goto(f"{visitor.url}/ops")
    expect(page.get_by_role("heading", name="Состояние", exact=True)).to_be_visible()


def test_both_languages_have_all_words(visitor: Visitor) -> None:
    page = visitor.open()
    keys = page.evaluate(
        """async () => {
            const base = document.querySelector("script[type=module]").src.replace("studio.js", "");
            const words = async (name) => Object.keys((await import(base + name + ".js")).default).sort();
            return [await words("words-en"), await words("words-ru"), await words("words-ops-en"), await words("words-ops-ru")];
        }"""
    )
    english, russian = set(keys[0]), set(keys[1])
    assert english == russian and keys[2] == keys[3]


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url, **PHONE) as visitor:
        page = visitor.open()
        page.get_by_role("button", name="Render tile").tap()
        card = page.locator(".card").first
        expect(card).to_have_attribute("data-standing", "succeeded")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        card.get_by_role("button").first.tap()
        expect(page.get_by_role("dialog").get_by_text("Ordered and measured")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.goto(f"{visitor.url}/ops")
        expect(page.get_by_role("heading", name="Workers")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_tile_is_ordered_and_looked_at_with_the_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.open()
    page.get_by_label("As text").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Render tile":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
    page.keyboard.press("Tab")
    for _ in range(12):
        if page.evaluate("document.activeElement.className") == "card-open":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: Server, axe: str, scheme: str) -> None:
    with visiting(browser, server.url, color_scheme=scheme, reduced_motion="reduce") as visitor:
        page = visitor.open()
        page.get_by_role("button", name="Render tile").click()
        expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
        page.get_by_text("More options").click()
        assert complaints(page, axe) == []
        page.get_by_label("As text").fill("50% red, 40% blak")
        expect(page.locator(".mix-editor .remark.wrong")).to_be_visible()
        assert complaints(page, axe) == []
        page.get_by_role("button", name="Presets and batch").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert complaints(page, axe) == []
        page.keyboard.press("Escape")
        page.locator(".card-open").first.click()
        expect(page.get_by_role("dialog").get_by_text("Colour error")).to_be_visible()
        assert complaints(page, axe) == []
        page.goto(f"{visitor.url}/ops")
        expect(page.get_by_role("cell", name="stand-in")).to_be_visible()
        assert complaints(page, axe) == []


def test_a_chosen_theme_stays(visitor: Visitor) -> None:
    page = visitor.open()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate(ground) != light


@pytest.fixture
def guarded(server: Server, tmp_path: Path) -> Iterator[Server]:
    """The same, but with tokens."""
    admin = new_entry("chief", "chief-secret", {"scopes": ["read", "create", "admin"]})
    (tmp_path / "tokens.toml").write_text(new_entry("shop", "shop-secret", {}) + admin)
    guarded = Server(server.settings, tmp_path, {"GRANULE_API_TOKENS_FILE": str(tmp_path / "tokens.toml")})
    guarded.start()
    yield guarded
    guarded.stop()


def test_a_token_is_asked_for_checked_and_forgotten_with_the_tab(browser: Browser, guarded: Server) -> None:
    with visiting(browser, guarded.url) as visitor:
        visitor.expected = ("401", "403")
        page = visitor.page
        page.goto(visitor.url)
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.get_by_role("button", name="Use this token").click()
        expect(page.get_by_text("The server does not know this token.")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("shop-secret")
        page.get_by_role("button", name="Use this token").click()
        page.get_by_role("button", name="Render tile").click()
        expect(page.locator(".card").first).to_have_attribute("data-standing", "succeeded")
        assert "secret" not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        page.goto(f"{visitor.url}/ops")
        expect(page.get_by_text("it wants a token with the scope admin")).to_be_visible()
        page.get_by_role("button", name="Forget token").click()
        page.get_by_role("textbox", name="Token").fill("chief-secret")
        page.get_by_role("button", name="Use this token").click()
        expect(page.get_by_role("heading", name="Workers")).to_be_visible()


def test_operators_see_what_runs_and_call_it_off(visitor: Visitor) -> None:
    body = {"version": "granule/rubber-tile-mini", "input": {"prompt": "100% lilac, 3 s a step"}}
    made = httpx.post(f"{visitor.url}/v1/predictions", json=body).json()
    behind = httpx.post(f"{visitor.url}/v1/predictions", json=body).json()
    page = visitor.open("/ops")
    expect(page.get_by_text("1 busy")).to_be_visible()
    page.get_by_role("button", name=f"Call off {behind['id']}").click()
    page.get_by_role("button", name=f"Call off {made['id']}").click()
    expect(page.get_by_text("Nothing waits and nothing is drawn.")).to_be_visible()
    assert httpx.get(f"{visitor.url}/v1/predictions/{made['id']}").json()["status"] == "canceled"


def test_operators_drain_a_worker_and_resume_it(visitor: Visitor) -> None:
    visitor.expected = ("503",)  # without a worker the server says that it is not ready
    page = visitor.open("/ops")
    row = page.get_by_role("row").filter(has_text="stand-in")
    expect(row).to_contain_text("idle")
    row.get_by_role("button", name="Drain").click()
    expect(row.locator(".badge.drained")).to_be_visible()
    expect(page.get_by_text("no worker ready").first).to_be_visible()
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".badge.idle")).to_be_visible()


def test_a_server_that_does_not_answer_is_said_and_asked_again(visitor: Visitor) -> None:
    visitor.expected = ("Failed to load resource", "Failed to fetch")
    page = visitor.page
    page.route("**/v1/**", lambda route: route.abort())
    page.goto(visitor.url)
    expect(page.get_by_role("heading", name="The server does not answer.")).to_be_visible()
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Render tile")).to_be_visible()


def test_a_list_that_fails_later_is_asked_for_again(visitor: Visitor) -> None:
    visitor.expected = ("503",)
    page = visitor.page
    problem = json.dumps({"status": 503, "code": "store_unavailable", "detail": "the job store does not answer"})
    page.route(
        "**/v1/predictions", lambda route: route.fulfill(status=503, content_type="application/problem+json", body=problem)
    )
    page.goto(visitor.url)
    expect(page.get_by_text("The server cannot reach its database.")).to_be_visible()
    page.unroute("**/v1/predictions")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("The server cannot reach its database.")).to_be_hidden()
