"""What looks wrong in a table though a law can be fitted to it: units mixed up, rows that contradict each other.

Owns the suspicions, each one sentence that says what, where and what would be right. Refuses and changes nothing: a
suspicion is told beside the fit.
"""

from collections.abc import Mapping

import numpy as np

from sweep_analysis.laws.base import Array, Law
from sweep_analysis.scale import format_scale
from sweep_analysis.table import Table

SHANNON_FLOOR = 0.6 * np.log(
    2.0
)  # nats a letter, the lowest estimate for English (Shannon 1951, table I at 100 letters)
UNTRAINED = np.log(400_000.0)  # nats a token of a model that knows nothing, over the largest vocabularies in use
BITS_FLOOR = (2.3, 2.85)  # published floors of subword text, 1.6 to 1.97 nats, in bits
DISAGREEMENT = 0.02  # relative; seeds of one run differ by less than a tenth of this


def suspicions(table: Table, law: Law, constants: Mapping[str, float]) -> tuple[str, ...]:
    """Everything that looks wrong, most likely first; empty where nothing does."""
    found = [*_sizes(table), *_duplicates(table, law)]
    if law.response == "loss":
        found += _loss(table["loss"], table.named.get("loss", "loss"), constants.get("E"))
    return tuple(found)


def _loss(loss: Array, name: str, floor: float | None) -> list[str]:
    lowest, highest = float(loss.min()), float(loss.max())
    lower = name.lower()
    if any(word in lower for word in ("bit", "bpb", "bpc", "bpt")):
        return [f"the column {name} seems to hold bits; losses are nats per token (bits · ln 2)"]
    if lowest < SHANNON_FLOOR:
        return [
            f"the lowest loss, {lowest:.3g}, is below {SHANNON_FLOOR:.2f} nats, the entropy of English per letter: "
            "is it in nats per token, and of held-out text?"
        ]
    if highest > UNTRAINED:
        return [
            f"the highest loss, {highest:.3g}, is above {UNTRAINED:.1f} nats, what a model that knows nothing has: "
            "is it in bits, or a sum?"
        ]
    if floor is not None and BITS_FLOOR[0] < floor < BITS_FLOOR[1]:
        return [
            f"the fitted floor, {floor:.3g}, is near the published floors (1.6 to 2 nats) in bits: if losses are in "
            "bits, multiply them by ln 2"
        ]
    return []


def _sizes(table: Table) -> list[str]:
    if not {"parameters", "tokens"} <= table.columns.keys():
        return []
    N, D = table["parameters"], table["tokens"]
    ratio = D / N
    if float(ratio.max() / ratio.min()) > 1e5:
        low, high = int(np.argmin(ratio)), int(np.argmax(ratio))
        return [
            f"token/parameter ratios run from {ratio[low]:.2g} to {ratio[high]:.2g} (D = {format_scale(D[low])} at N = "
            f"{format_scale(N[low])}, D = {format_scale(D[high])} at N = {format_scale(N[high])}): are units mixed?"
        ]
    middle = float(np.median(ratio))
    if middle < 1e-3 and float(np.median(D)) < 1e6:
        return [f"tokens are {np.median(D):.3g} at {np.median(N):.3g} parameters: they look as if counted in billions"]
    if middle > 1e5 and float(np.median(N)) < 1e5:
        return [f"parameters are {np.median(N):.3g} at {np.median(D):.3g} tokens: they look as if counted in millions"]
    if float(np.median(N)) < 1e3 and float(np.median(D)) < 1e5:
        return [f"{np.median(N):.3g} parameters on {np.median(D):.3g} tokens: both look as if counted in units of many"]
    return []


def _duplicates(table: Table, law: Law) -> list[str]:
    """Rows at the same place of the law whose responses differ by more than seeds do."""
    keys = np.stack([table[a.name] for a in law.axes], axis=1)
    y = table[law.response]
    _, place, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return []
    place = place.ravel()
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, place, y)
    np.maximum.at(high, place, y)
    apart = (high - low) > DISAGREEMENT * np.abs(low)
    if not apart.any():
        return []
    worst = int(np.argmax(np.where(apart, high - low, -1.0)))
    row = int(np.flatnonzero(place == worst)[0])
    where = ", ".join(f"{a.name} {format_scale(keys[row, i])}" for i, a in enumerate(law.axes))
    return [
        f"records of one place disagree by more than {DISAGREEMENT:.0%}, at {int(apart.sum())} of them ({where}: "
        f"{low[worst]:.4g} and {high[worst]:.4g}): are there failed or repeated runs among them?"
    ]
