"""The report of a ladder: one self-contained page, written beside the ladder's documents.

Owns the call. `gather` reads, `words` says, `plots`, `tables` and `folded` show, `page` puts together.
"""

from pathlib import Path

from sweep_operator.clusters.local.files import TEMPORARY
from sweep_operator.report.gather import gather
from sweep_operator.report.page import page

__all__ = ["write_report"]


def write_report(workdir: Path) -> Path:
    """Write `report.html` of the ladder in `workdir` and return its path.

    The same documents give the same bytes. Raises NoSweepError or the store's DamagedError when there is no readable
    sweep, OSError when the file cannot be written; what else is missing is said in the page.
    """
    text = page(gather(workdir))
    report = workdir / "report.html"
    temporary = report.with_name(f".{report.name}{TEMPORARY}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(report)
    finally:
        temporary.unlink(missing_ok=True)
    return report
