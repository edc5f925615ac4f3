"""The threat model names a test for each line, and each test that it names exists."""

import re

import pytest
from helm_chart import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
THREATS = PAGE.split("## Threats")[1].split("## Not covered")[0]
LINES = [line for line in THREATS.splitlines() if line.startswith("| ") and not line.startswith("| threat")]


@pytest.mark.parametrize("line", LINES)
def test_the_test_that_a_threat_names_exists(line: str) -> None:
    threat, stopped, shown = (cell.strip() for cell in line.strip("|").split("|"))
    assert threat
    assert stopped
    match = re.fullmatch(r"`(tests/\S+\.py)::(test_\w+)`", shown)
    assert match, f"no test is named for: {threat}"
    path, name = match.groups()
    assert f"def {name}(" in (ROOT / path).read_text(), shown
