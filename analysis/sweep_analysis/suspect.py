"""What looks wrong in a table though a law can be fitted to it: units mixed up, rows that contradict each other.

Owns the suspicions, each one sentence that says what, where and what would be right. Refuses and changes nothing: a
suspicion is told beside the fit.
"""

from collections.abc import Mapping

import numpy as np

from sweep_analysis.laws.base import Array, Law
from sweep_analysis.laws.chinchilla import Chinchilla
from sweep_analysis.scale import format_scale
from sweep_analysis.table import Table

SHANNON_FLOOR = 0.6 * np.log(
    2.0
)  # nats a letter, the lowest estimate for English (Shannon 1951, table I at 100 letters)
UNTRAINED = np.log(400_000.0)  # nats a token of a model that knows nothing, over the largest vocabularies in use
BITS_FLOOR = (2.3, 2.85)  # published floors of subword text, 1.6 to 1.97 nats, in bits
ABOVE_PUBLISHED = (0.25, 0.55)  # ln loss over a published law's; medians of the published ladders: −.07 to .13 in nats
DISAGREEMENT = 0.02  # relative; seeds of one run differ by less than a tenth of this
MISFIT = 0.1  # ln loss; no record of the published ladders lies as far from their law
BITS = (0.30, 0.44)  # ln loss, about ln(1/ln 2) = .367: how far apart losses in nats and in bits lie
EXPLAINED = 0.3  # of the squares about a plane; what is left when two groups are told apart that are none: .2 and more
MOST_ROWS = 400  # that are looked at for two groups


def suspicions(table: Table, law: Law, constants: Mapping[str, float]) -> tuple[str, ...]:
    """Everything that looks wrong, most likely first; empty where nothing does."""
    found = [*_sizes(table), *_duplicates(table, law)]
    if law.response == "loss":
        found += _both(table, law, constants) or _loss(table, constants.get("E"))
    return tuple(found)


def _loss(table: Table, floor: float | None) -> list[str]:
    loss, name = table["loss"], table.named.get("loss", "loss")
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
    if {"parameters", "tokens"} <= table.columns.keys():  # a floor of small runs alone is too uncertain to go by
        law = Chinchilla()
        usual = law.predict(law.published, parameters=table["parameters"], tokens=table["tokens"])
        above = float(np.median(np.log(loss / usual)))
        if ABOVE_PUBLISHED[0] < above < ABOVE_PUBLISHED[1]:
            return [
                f"the losses are about {np.exp(above):.2f} times what published models of these sizes have in nats: if "
                "they are in bits, multiply them by ln 2"
            ]
    elif floor is not None and BITS_FLOOR[0] < floor < BITS_FLOOR[1]:
        return [
            f"the fitted floor, {floor:.3g}, is near the published floors (1.6 to 2 nats) in bits: if losses are in "
            "bits, multiply them by ln 2"
        ]
    return []


def _both(table: Table, law: Law, constants: Mapping[str, float]) -> list[str]:
    """Whether some losses are in bits and the others in nats: two parallel planes over (ln N, ln D) then hold them.

    Asked only where the law misses some record widely; it does not where the smallest runs alone are in bits, since a
    steeper law explains them.
    """
    if not {"parameters", "tokens"} <= table.columns.keys() or not constants or len(table) < 8:
        return []
    told = law.predict(constants, **{a.name: table[a.name] for a in law.axes})
    if float(np.abs(np.log(told / table["loss"])).max()) < MISFIT:
        return []
    rows = slice(None, None, -(-len(table) // MOST_ROWS))
    N, D, L = (table[name][rows] for name in ("parameters", "tokens", "loss"))
    apart, high = _two_planes(np.log(N), np.log(D), np.log(L))
    if not BITS[0] < apart < BITS[1] or not high.any() or high.all():
        return []
    row = int(np.flatnonzero(high)[0])
    count = f"{int(high.sum())} of {len(L)} losses" if len(L) == len(table) else f"{high.mean():.0%} of the losses"
    return [
        f"{count} are about {np.exp(apart):.2f} times what the others lead to expect (the "
        f"first: {L[row]:.4g} at {format_scale(N[row])} parameters on {format_scale(D[row])} tokens): are some in bits "
        "(1.44 times as many as nats), or failed runs among them?"
    ]


def _two_planes(n: Array, d: Array, y: Array) -> tuple[float, Array]:
    """How far apart the two parallel planes lie that hold y best, and which points lie on the upper one; 0 where one
    plane is nearly as good.

    Starts: at the widest gaps between the residuals of one plane, and at thresholds along size, data and compute.
    """
    plane = np.column_stack([np.ones_like(n), n - n.mean(), d - d.mean()])
    residual = y - plane @ np.linalg.lstsq(plane, y, rcond=None)[0]
    cuts = [(residual, _middles(residual)[np.argsort(-np.diff(np.sort(residual)), kind="stable")[:3]])]
    cuts += [(v, _middles(np.quantile(v, np.linspace(0.0, 1.0, 11)))) for v in (n, d, n + d)]
    least, apart, high = EXPLAINED * float(residual @ residual), 0.0, np.zeros(len(y), dtype=bool)
    for values, edges in cuts:
        for edge in edges:
            group = values > edge
            for _ in range(4):
                if not 0 < group.sum() < len(y):
                    break
                found = np.linalg.lstsq(np.column_stack([plane, group]), y, rcond=None)[0]
                off = y - plane @ found[:3]
                left = float(np.sum((off - found[3] * group) ** 2))
                if left < least:
                    least, apart, high = left, abs(float(found[3])), group if found[3] > 0 else ~group
                group = off > found[3] / 2 if found[3] > 0 else off < found[3] / 2
    return apart, high


def _middles(values: Array) -> Array:
    """Half way between neighbours, in order."""
    v = np.sort(values)
    return np.asarray((v[1:] + v[:-1]) / 2)


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
