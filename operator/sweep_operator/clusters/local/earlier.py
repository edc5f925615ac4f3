"""Records of earlier runs, on one machine: files beside the manifest.

Owns where they lie and the refusal of what only a cluster has; what they must hold is `imports`'.
"""

from pathlib import Path

from sweep_analysis.table import Text
from sweep_operator.api import Imports, ScalingSweep
from sweep_operator.clusters import Unavailable
from sweep_operator.imports import MAX_BYTES, imports_of


def imported(sweep: ScalingSweep, root: Path) -> Imports:
    """What `spec.records` names; `root` is the manifest's folder. Raises Unavailable."""
    texts = []
    for number, source in enumerate(sweep.spec.records):
        if source.file is None:
            raise Unavailable(
                f"spec.records[{number}] names ConfigMap {source.config_map}, and there are none on one machine;"
                " name a file, from the manifest's folder"
            )
        texts.append(Text(source.file, _read(root / source.file, f"spec.records[{number}].file")))
    return imports_of(texts)


def _read(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unavailable(f"{where}: {path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are taken")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unavailable(f"{where}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unavailable(f"{where}: {path} is not UTF-8 text; CSV or JSON lines would be right") from None
