"""An interactive figure is one page that asks for nothing, shows the paper's picture, and says its values."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from sweep_analysis.figures import Foretold, Measured, interactive, law_figure, residuals_figure
from sweep_analysis.figures.series import Misfit
from sweep_analysis.figures.style import INK

MEASURED = [Measured(f"r{i}", 1e6 * 4**i, 2e7 * 4**i, 4.0 - 0.3 * i, "a") for i in range(4)]


@pytest.fixture
def page():
    figure = law_figure(MEASURED, target=Foretold(1e9, 2e10, 2.5, 2.4, 2.6))
    return interactive(figure, "Loss <falls> & falls")


def test_every_mark_says_its_values_and_can_be_reached_by_keyboard(page):
    marks = re.findall(r'<g class="tip" tabindex="0" role="img" aria-label="([^"]+)"', page)
    assert len(marks) == len(MEASURED) + 1
    assert "r0: 4.0000 nats/token at 1M parameters, 20M tokens" in marks
    assert "target, forecast: 2.5000 nats/token, 2.4000 to 2.6000" in marks


def test_the_page_loads_nothing_from_outside(page):
    assert not re.search(r'(?:src|href)="(?!#)|url\((?!#)|@import|https?://(?!www\.w3\.org)', page)


def test_the_title_is_escaped_and_stands_for_the_picture(page):
    assert "<title>Loss &lt;falls&gt; &amp; falls</title>" in page
    assert 'aria-label="Loss &lt;falls&gt; &amp; falls"' in page


def test_the_picture_is_well_formed_and_holds_no_fixed_colours(page):
    svg = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    ET.fromstring(svg)
    assert INK not in svg
    assert "var(--observed)" in svg


def test_the_same_figure_gives_the_same_page_and_the_file_holds_it(tmp_path):
    misfits = [Misfit(m, 1.01 * m.loss) for m in MEASURED]
    one, other = (interactive(residuals_figure(misfits), "Residuals", path=tmp_path / "x.html") for _ in range(2))
    assert one == other == (tmp_path / "x.html").read_text(encoding="utf-8")


def test_a_figure_without_a_title_is_refused():
    with pytest.raises(ValueError, match="needs a title"):
        interactive(law_figure(MEASURED), " ")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on PATH to open the page in")
def test_in_a_browser_pointing_at_a_mark_shows_its_value(page, tmp_path):
    probe = (
        "<script>const m=document.querySelector('.tip');m.dispatchEvent(new Event('pointerenter'));"
        "document.title=document.getElementById('value').hidden?'hidden':document.getElementById('value').textContent;"
        "</script></body>"
    )
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.search(r"<title>(r0|target).*nats/token", done.stdout)
