"""The threat model names a test for each line, and each test that it names exists."""

import re

import pytest
from helm_chart import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
THREATS = PAGE.split("## Threats")[1].split("## Not covered")[0]
NOT_COVERED = PAGE.split("## Not covered")[1]
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


def test_a_base_that_no_digest_pins_is_named_with_how_to_pin_it() -> None:
    """What the page says is not covered: whoever builds an image pins its base, by the arguments that there are."""
    for image in ("operator", "trainer"):
        lines = (ROOT / image / "Dockerfile").read_text().splitlines()
        defaults = dict(re.findall(r"^ARG (\w*BASE)=(\S+)$", "\n".join(lines), re.MULTILINE))
        bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
        stages = {line.split()[3] for line in lines if line.startswith("FROM ") and " AS " in line}
        assert {base for base in bases if base not in stages} == {f"${{{name}}}" for name in defaults}
        for name, default in defaults.items():
            assert "@sha256:" not in default
            assert f"`{name}`" in NOT_COVERED or f"--build-arg {name}=" in NOT_COVERED
