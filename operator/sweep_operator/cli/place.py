"""Where a sweep stands, as the commands ask for it: they never know whether it is a folder or a cluster.

Adapters: `ladder.LocalPlace` and `cluster.ClusterPlace`; which of them, `placing` chooses.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.live.summary import Whereabouts

Wish = Callable[[ScalingSweep], dict[str, Any]]
"""From the sweep as it stands to the fields of its spec that are to change."""


class Place(Protocol):
    """One sweep, wherever it stands. Every method raises InputError, in one sentence, when it is not there."""

    watch_seconds: float
    """How often a watching command looks again."""

    @property
    def whereabouts(self) -> Whereabouts:
        """How a person names the sweep in further commands."""

    def sweep(self) -> ScalingSweep:
        """The sweep with its status."""

    def document(self) -> dict[str, Any]:
        """The sweep as it is stored."""

    def runs(self) -> Sequence[ScalingRun]:
        """Its runs, with what their trainers have reported."""

    def log(self, run: ScalingRun, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """What the trainer of the run's newest attempt printed, its last `tail` lines where that is given.

        With `follow` it goes on until nothing more will be printed.
        """

    def change(self, wish: Wish) -> ScalingSweep:
        """Change fields of the spec; the wish is asked again when somebody else was quicker."""

    def going_on(self) -> str:
        """Whether what was decided happens by itself, or what has to be started."""
