"""A headless Chromium in front of the admin. A page may neither report an error nor ask another host for anything."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WITHIN = 60_000  # ms, against hanging only: a busy machine is slow
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        assert os.environ.get("CI") != "true", "the admin must be tested in a browser in CI: install chromium"
        pytest.skip("no Chromium here")
    return found


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    expect.set_options(timeout=WITHIN)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A browser's window, and what went wrong in it."""

    context: BrowserContext
    host: str
    faults: list[str] = field(default_factory=list)

    def open(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(WITHIN)
        page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and self.faults.append(f"{answer.status} {answer.url}"))
        page.on("request", lambda request: self._watch(request.url))
        return page

    def _watch(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.faults.append(f"asked {url}")


@contextlib.contextmanager
def watched(browser: Browser, url: str, *, javascript: bool = True) -> Iterator[Page]:
    context = browser.new_context(java_script_enabled=javascript, viewport={"width": 1280, "height": 900})
    window = Watched(context, urlsplit(url).netloc)
    yield window.open()
    context.close()
    assert not window.faults, "\n".join(window.faults)
