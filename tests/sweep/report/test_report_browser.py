"""The page in a real browser: it asks for nothing, complains of nothing, and fits the screens that people have.

Chromium is driven through its DevTools protocol over a pipe; without one on PATH (or in $CHROMIUM) these are skipped.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sweep_operator.report import write_report

NAMES = [name for name in (os.environ.get("CHROMIUM"), "chromium", "google-chrome") if name]
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PHONE, DESKTOP = 390, 1280
STORIES = ("finished", "held", "stopped", "retuned", "asked", "foretold", "fresh")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: none on PATH, and $CHROMIUM does not name one")


class Browser:
    """One headless Chromium; commands are answered in order, events are kept."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        out_read, self._write = os.pipe()
        self._read, in_write = os.pipe()

        def wire() -> None:
            # Either end may itself be 3 or 4: move both out of the way before they are put there.
            high_read, high_write = os.dup(out_read), os.dup(in_write)
            os.dup2(high_read, 3)
            os.dup2(high_write, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(out_read)
        os.close(in_write)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return cast("dict[str, Any]", answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium has gone"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return cast("dict[str, Any]", json.loads(message))

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "") -> None:
        """Show a page and wait until it is loaded."""
        self.events.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.send("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + 60
        while self.ask("document.readyState") != "complete" or self.ask("location.protocol") != "file:":
            assert time.monotonic() < deadline, "the page did not load within a minute"

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=STORIES)
def page(request: pytest.FixtureRequest, story: Callable[[str], Path]) -> Path:
    """The report of each story."""
    return write_report(story(request.param))


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_never_scrolls_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP)
    requests = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert requests == [page.as_uri()]
    complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [e for e in browser.events if e.get("method") in complaints] == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_exactly_one_of_each_pair_of_pictures_is_shown(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    shown = browser.ask(
        "[...document.querySelectorAll('.picture')].map("
        "p => [...p.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0).length)"
    )
    assert set(shown) <= {1}


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_no_text_of_a_figure_is_cut_off_by_the_edge_of_the_page(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    outside = browser.ask(
        "[...document.querySelectorAll('svg text')].filter(t => { const b = t.getBoundingClientRect();"
        " return b.width > 0 && (b.left < 0 || b.right > document.documentElement.clientWidth); })"
        ".map(t => t.textContent)"
    )
    assert outside == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_has_enough_contrast_by_day_and_by_night(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, DESKTOP, dark=dark)
    colours = browser.ask(
        "(() => { const rgb = c => c.match(/[\\d.]+/g).map(Number); const seen = new Set();"
        " for (const e of document.querySelectorAll('body *')) { const s = getComputedStyle(e);"
        " if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) "
        " && !['STYLE', 'title'].includes(e.tagName))"
        " seen.add(e.closest('svg') ? s.fill : s.color); }"
        " return {paper: rgb(getComputedStyle(document.body).backgroundColor), words: [...seen].map(rgb)}; })()"
    )
    assert len(colours["words"]) >= 2
    for words in colours["words"]:
        assert _contrast(words, colours["paper"]) >= 4.5, f"{words} on {colours['paper']}"


def _contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2 contrast ratio of two sRGB colours."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour[:3])]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_figure_has_words_for_those_who_cannot_see_it(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP)
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    images = [n for n in nodes if n.get("role", {}).get("value") in ("image", "img")]
    assert len(images) == browser.ask("document.querySelectorAll('.picture').length")
    assert all(len(n["name"]["value"]) > 20 for n in images)


def test_on_paper_every_verdict_is_unfolded_in_dark_ink_on_white(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP, dark=True, media="print")
    assert browser.ask("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    folded = browser.ask(
        "[...document.querySelectorAll('.verdicts .checks')].filter(c => c.getBoundingClientRect().height === 0).length"
    )
    assert folded == 0
