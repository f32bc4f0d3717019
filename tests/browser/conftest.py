"""The page in a real browser, before the real API, Redis, S3 and a render worker whose pipeline draws noise in five steps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from infra.local.ports import free_block
from infra.local.redis_server import RedisServer
from shared.settings import Settings
from tests.integration.clients.install import cannot, installed
from tests.integration.conftest import S3Location, redis_server, s3, s3_server
from tests.integration.processes import Processes, environment, wait_until

__all__ = ["redis_server", "s3", "s3_server"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync")
AXE = Path(__file__).parent / "axe"

expect.set_options(timeout=20_000)


@dataclass
class Server:
    """The API on one port, to be stopped and started again."""

    settings: Settings
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_block(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--bind", f"127.0.0.1:{self.port}", "--worker-class", "gthread", "--threads", "32"]
        with (self.folder / "api.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "--graceful-timeout", "1", "api.server:create_app()"],
                env=environment(self.settings, **self.extra),
                stdout=log,
                stderr=log,
            )
        wait_until(self.is_up)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Visitor:
    """Somebody who looks at the page. `errors` is what the browser's console complained about."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Texts of complaints that belong to the test."""

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        if path == "/":
            expect(self.page.get_by_role("button", name="Render tile")).to_be_visible()
        return self.page


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Chromium or Chrome of this machine: `BROWSER_PATH`, or one that is on PATH."""
    found = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        cannot("no browser: set BROWSER_PATH, or install one (Debian: apt install chromium)")
    options = [*QUIET, "--no-sandbox"] if os.geteuid() == 0 else list(QUIET)
    launched = playwright.chromium.launch(executable_path=found, args=options)
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def server(
    browser: Browser, redis_server: RedisServer, s3: S3Location, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """API, render worker and courier."""
    folder = tmp_path_factory.mktemp("studio")
    prefix = f"{folder.name}:"
    settings = s3.settings(Settings(redis_url=redis_server.url, redis_prefix=prefix, heartbeat_s=0.5, lease_s=3))
    processes = Processes(settings, folder, {"STANDIN_STEP_S": "0.05"})
    server = Server(settings, folder)
    try:
        processes.guardian()
        server.start()
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200, timeout_s=60)
        yield server
    finally:
        server.stop()
        processes.stop()


@contextmanager
def visiting(browser: Browser, url: str, **options: object) -> Iterator[Visitor]:
    """A visitor with a profile of its own; whatever the console complained about fails the test at the end."""
    context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}, "locale": "en-US"} | options))  # type: ignore[arg-type]
    visitor = Visitor(context.new_page(), url)
    visitor.page.on("console", lambda message: visitor.errors.append(message.text) if message.type == "error" else None)
    visitor.page.on("pageerror", lambda error: visitor.errors.append(str(error)))
    yield visitor
    context.close()
    unexpected = [error for error in visitor.errors if not any(text in error for text in visitor.expected)]
    assert not unexpected


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[Visitor]:
    with visiting(browser, server.url) as visitor:
        yield visitor


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    """The source of axe-core, which looks for what keeps people out."""
    npm = shutil.which("npm")
    if not npm:
        cannot("the check of accessibility needs npm on PATH, to install axe-core")
    command = [str(npm), "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    folder = installed(pytestconfig.cache, "axe", [AXE / "package.json", AXE / "package-lock.json"], lambda _: command)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()
