"""Lets a Python process believe another time of day: by `SKEW` seconds, before anything else is imported.

Only what the wall clock says is moved; the monotonic clock, by which leases and time limits are kept, cannot be set.
"""

import datetime
import os
import time

SKEW = float(os.environ["SKEW"])
_time = time.time


class Skewed(datetime.datetime):
    """The time of day as this process sees it."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=SKEW)


datetime.datetime = Skewed
time.time = lambda: _time() + SKEW
