"""`python -m sweep_chart [--check]`: write every generated file of the chart and its pages, or say which differ."""

import sys

from sweep_chart.files import ROOT, generated


def main() -> int:
    """Exit status 1 when `--check` finds a file that is not as generated."""
    check = sys.argv[1:] == ["--check"]
    differing = []
    for path, text in generated().items():
        file = ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        differing.append(path)
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for path in differing:
        print(f"{path}: {'not as generated; run `make chart`' if check else 'written'}")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
