"""What a FLOP costs on which device: peak rates, memory, the share of the peak that training reaches, and a price.

Owns the table, each figure with its source, and the arithmetic from FLOPs to GPU-hours and money with intervals.
Measures nothing: a ladder that ran prices its own FLOPs.
"""

import difflib
import math
from dataclasses import dataclass

from sweep_analysis.document import Document

MFU = (0.30, 0.43)
MFU_SOURCE = (
    "upper end: 43 % on 8,192 H100s (Grattafiori et al. 2024, arXiv:2407.21783, table 4); lower end: an assumption"
    " for smaller models and less tuned clusters"
)
PRICE_SOURCE = "an assumption, no quote"


class Range(Document):
    """An expected value and the interval that the assumptions leave."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Device:
    """One kind of GPU."""

    name: str
    peak: float
    """Dense bf16 (fp16 where there is none) FLOP/s, without sparsity."""
    memory: float
    """Bytes."""
    price: float | None
    """Assumed rent, in dollars per GPU-hour; None where nobody can assume one."""
    source: str


GB = 1e9
DEVICES = {
    device.name: device
    for device in (
        Device("b200", 2250e12, 180 * GB, None, "NVIDIA DGX B200 datasheet, dense bf16 per GPU"),
        Device("h200", 989.4e12, 141 * GB, 3.0, "NVIDIA H200 SXM datasheet, half of the bf16 figure with sparsity"),
        Device("h100", 989.4e12, 80 * GB, 2.5, "NVIDIA H100 SXM datasheet, half of the bf16 figure with sparsity"),
        Device("h100-pcie", 756e12, 80 * GB, 2.0, "NVIDIA H100 PCIe datasheet, half of the bf16 figure with sparsity"),
        Device("a100", 312e12, 80 * GB, 1.5, "NVIDIA A100 80GB datasheet, bf16 dense"),
        Device("a100-40gb", 312e12, 40 * GB, 1.2, "NVIDIA A100 40GB datasheet, bf16 dense"),
        Device("l40s", 362e12, 48 * GB, None, "NVIDIA L40S datasheet, half of the bf16 figure with sparsity"),
        Device("l4", 121e12, 24 * GB, None, "NVIDIA L4 datasheet, half of the bf16 figure with sparsity"),
        Device("a10", 125e12, 24 * GB, None, "NVIDIA A10 datasheet, bf16 dense"),
        Device("v100", 125e12, 32 * GB, None, "NVIDIA V100 SXM2 datasheet, fp16 tensor cores"),
        Device("mi300x", 1307.4e12, 192 * GB, None, "AMD Instinct MI300X datasheet, bf16 dense"),
        Device("mi250x", 383e12, 128 * GB, None, "AMD Instinct MI250X datasheet, bf16, both dies"),
    )
}


def device_of(name: str) -> Device:
    """The device of that name, whatever its case. Raises ValueError that names the nearest known one."""
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    if plain in DEVICES:
        return DEVICES[plain]
    near = difflib.get_close_matches(plain, DEVICES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no GPU called {name!r} is known; {hint}known: {', '.join(DEVICES)}")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices that a plan is priced on."""

    device: Device
    mfu: tuple[float, float] = MFU
    """Share of the peak that 6·N·D FLOPs reach, low and high; the expectation is their geometric mean."""
    price: float | None = None
    """Dollars per GPU-hour; the device's assumed one when None."""
    gpus: int | None = None

    def __post_init__(self) -> None:
        low, high = self.mfu
        if not 0 < low <= high <= 1:
            raise ValueError(f"an MFU range of {low:g}:{high:g} is not within 0 to 1 with the lower end first")

    @property
    def rate(self) -> float:
        """Expected FLOP/s of one GPU, 6·N·D convention."""
        return self.device.peak * math.sqrt(self.mfu[0] * self.mfu[1])

    @property
    def dollars(self) -> float | None:
        """Per GPU-hour: as given, else as assumed for the device."""
        return self.device.price if self.price is None else self.price

    def hours(self, flops: float) -> Range:
        """GPU-hours for training FLOPs (6·N·D), by the range of MFU."""
        low, high = self.mfu
        slow, fast = flops / self.device.peak / low / 3600, flops / self.device.peak / high / 3600
        return Range(value=flops / self.rate / 3600, low=fast, high=slow)

    def flops(self, gpu_hours: float) -> float:
        """Training FLOPs that so many GPU-hours are expected to buy."""
        return gpu_hours * 3600 * self.rate

    def cost(self, hours: Range) -> Range | None:
        """Dollars, None without a price."""
        if self.dollars is None:
            return None
        return Range(value=hours.value * self.dollars, low=hours.low * self.dollars, high=hours.high * self.dollars)

    def assumptions(self) -> dict[str, dict[str, object]]:
        """What the prices rest on, each with its source."""
        low, high = self.mfu
        given = "given"
        return {
            "gpu": {"value": self.device.name, "peakFlopsPerSecond": self.device.peak, "source": self.device.source},
            "mfu": {"low": low, "high": high, "source": MFU_SOURCE if self.mfu == MFU else given},
            "dollarsPerGpuHour": {"value": self.dollars, "source": PRICE_SOURCE if self.price is None else given},
        }
