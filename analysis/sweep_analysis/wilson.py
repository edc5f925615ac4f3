r"""The interval of a share: how many of so many trials came out, and what that says of all.

Owns Wilson's score interval (Wilson 1927, JASA 22, equation 5), which has a width where every trial came out as well:

$$\frac{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}$$
"""

import math

Z = 1.959964
"""Of 95 %."""


def wilson(share: float, trials: int) -> tuple[float, float]:
    """95 % interval of a share of so many trials."""
    centre = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = half_width(share, trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def half_width(share: float, trials: int) -> float:
    """Half the width of `wilson`'s interval."""
    return Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / (1 + Z * Z / trials)
