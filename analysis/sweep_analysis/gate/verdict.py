"""What a gate says and by which thresholds: the documents that are stored, shown and approved.

Owns outcomes, reasons, thresholds and verdicts. Decides nothing.
"""

from enum import StrEnum

from pydantic import Field

from sweep_analysis.document import Document
from sweep_analysis.rung import Run


class Outcome(StrEnum):
    """What one check, or the whole verdict, says."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NOT_JUDGED = "NotJudged"


class Reason(StrEnum):
    """Why; the same word in conditions, events, metrics and on the command line."""

    # Pass
    CONSISTENT = "Consistent"
    """Every check passed; the reason of a passing verdict."""
    RECORDS_COMPLETE = "RecordsComplete"
    RECORDS_FINITE = "RecordsFinite"
    RECORDS_COMPARABLE = "RecordsComparable"
    LAW_IDENTIFIED = "LawIdentified"
    FIT_CONVERGED = "FitConverged"
    FORECAST_SHARP = "ForecastSharp"
    AS_PREDICTED = "AsPredicted"
    STILL_SCALING = "StillScaling"
    FAST_ENOUGH = "FastEnough"
    DATA_FRESH = "DataFresh"
    TARGET_IN_REACH = "TargetInReach"
    AFFORDABLE = "Affordable"
    NOT_ASKED = "NotAsked"
    """The sweep sets no such limit, so the check has nothing to hold against it."""

    # NotJudged
    TOO_FEW_RECORDS = "TooFewRecords"
    """The earlier rungs hold fewer than 4 records of 3 sizes: nothing can forecast this rung."""
    UNIDENTIFIED_LAW = "UnidentifiedLaw"
    """The earlier rungs have one token/parameter ratio, which cannot identify a law of two exponents."""
    NOT_COMPUTED = "NotComputed"
    """An earlier check left nothing to compute this one from."""

    # Fail or Inconclusive
    RECORDS_MISSING = "RecordsMissing"
    """A planned record is not there; Inconclusive."""
    RECORDS_DUPLICATED = "RecordsDuplicated"
    """Two records claim to be the same planned one; Inconclusive, since nothing says which is right."""
    RECORDS_UNEXPECTED = "RecordsUnexpected"
    """A record was not planned, or N is counted by another convention than planned; Inconclusive."""
    RUN_DIVERGED = "RunDiverged"
    """A run diverged. Inconclusive until diagnosed; Fail when it diverges at every learning rate tried."""
    LOSS_NOT_FINITE = "LossNotFinite"
    """A loss is not a positive finite number; Fail."""
    VALIDATION_SET_DIFFERS = "ValidationSetDiffers"
    """Losses were measured on different validation sets; Fail: they say nothing about one another."""
    TOKENIZER_DIFFERS = "TokenizerDiffers"
    """Nats per token of different tokenizers; Fail."""
    PARAMETER_COUNT_DIFFERS = "ParameterCountDiffers"
    """One size is counted differently by different records; Fail."""
    FIT_NOT_CONVERGED = "FitNotConverged"
    """The law could not be fitted to the earlier rungs; Inconclusive."""
    FORECAST_TOO_WIDE = "ForecastTooWide"
    """The forecast is too ignorant to promote on; Inconclusive."""
    LOSS_ABOVE_PREDICTION = "LossAbovePrediction"
    """Worse than predicted. Inconclusive while experiments are asked for; Fail when they show that the law broke."""
    LOSS_BELOW_PREDICTION = "LossBelowPrediction"
    """Better than predicted is a surprise too; Inconclusive."""
    BADLY_TUNED = "BadlyTuned"
    """Another learning rate gives the predicted loss: the rung is to be rerun whole with `retune`; Inconclusive."""
    ONE_RUN_OFF = "OneRunOff"
    """Another learning rate mends one run while the rung's others are as predicted: a rerun of the whole rung with it
    would harm them; Inconclusive."""
    SEEDS_DISAGREE = "SeedsDisagree"
    """A replicate seed does not repeat the surprise: the rung's noise is too large to judge; Inconclusive."""
    DIAGNOSIS_FAILED = "DiagnosisFailed"
    """The experiments asked for gave no records; Inconclusive."""
    PLATEAU = "Plateau"
    """More compute brought no gain beyond noise; Inconclusive."""
    SLOW = "Slow"
    """The loss falls more slowly with compute than the slowest exponent allowed, interval included; Fail."""
    OUT_OF_DATA = "OutOfData"
    """Training data is repeated past its use; Inconclusive."""
    TARGET_OUT_OF_REACH = "TargetOutOfReach"
    """Even the lower end of the target's interval is above `maxLoss`; Fail."""
    OVER_BUDGET = "OverBudget"
    """The next rung's upper cost does not fit what is left of the budget; Fail."""

    # Launch of the target: Pass, or Inconclusive and a person decides
    LAUNCH_ALLOWED = "LaunchAllowed"
    LAUNCH_NEEDS_APPROVAL = "LaunchNeedsApproval"
    LADDER_PROVEN = "LadderProven"
    LADDER_NOT_PROVEN = "LadderNotProven"
    """The last two rungs were not both judged and passed."""
    MAX_LOSS_NOT_SET = "MaxLossNotSet"
    NO_FORECAST = "NoForecast"
    """There is no forecast of the target."""
    MAX_LOSS_NOT_CERTAIN = "MaxLossNotCertain"
    """The upper end of the target's interval is above `maxLoss`."""
    JUMP_CALIBRATED = "JumpCalibrated"
    JUMP_TOO_LARGE = "JumpTooLarge"
    """The target lies further away than intervals were calibrated for."""


class Thresholds(Document):
    """The limits a rung is judged by; stored with its forecast, before its runs exist."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval shown; 1 − confidence is also the share of healthy ladders that may be held by mistake."""
    tolerance: float = Field(default=0.01, ge=0, lt=1)
    """A relative deviation smaller than this never holds a rung."""
    max_half_width: float = Field(default=0.05, gt=0, lt=1)
    """A forecast of the rung's mean loss with a wider relative half-width does not promote."""
    judged_rungs: int = Field(default=1, ge=1, le=64)
    """How many rungs of the ladder will be judged: they share the budget of false holds."""
    max_loss: float | None = Field(default=None, gt=0)
    """Nats per token; a target that cannot reach it is not worth its cost."""
    slowest_exponent: float = Field(default=0.01, ge=0, lt=1)
    """−d ln L / d ln C at the frontier; 0.01 is a fall of 0.7 % per doubling of compute."""
    max_epochs: float = Field(default=16.0, ge=1)
    """Past this, repeated data has lost most of its worth (R_D* = 15.4, Muennighoff et al. 2023, arXiv:2305.16264)."""
    learning_rate_factors: tuple[float, ...] = Field(default=(0.25, 4.0), max_length=4)
    """Learning rates, relative to the rung's, that a diagnosis tries first; empty tries none."""
    replicates: int = Field(default=1, ge=0, le=4)
    """Replicate seeds that a diagnosis asks for."""


class CheckResult(Document):
    """What one check said, with the numbers it compared."""

    name: str = Field(max_length=40)
    """Of the check; docs/gate.md lists them all."""
    outcome: Outcome
    reason: Reason
    message: str = Field(max_length=1024)
    """One sentence with the numbers."""
    numbers: dict[str, float] = Field(default={}, max_length=16)
    """What was compared."""


class Experiment(Document):
    """A diagnosis run that would tell more than another opinion; its record never enters a fit."""

    run: Run
    why: str = Field(max_length=512)
    """What the experiment would tell."""


class Affordable(Document):
    """The next rung's cost against what is left; None where the sweep sets no limit or the cost is not known."""

    gpu_hours: float | None = Field(default=None, ge=0)
    """Upper forecast of the next rung's GPU-hours."""
    gpu_hours_left: float | None = None
    flops: float | None = Field(default=None, ge=0)
    """Training FLOPs of the next rung, 6ND."""
    flops_left: float | None = None


class Verdict(Document):
    """What the gate says of one rung."""

    outcome: Outcome
    reason: Reason
    message: str = Field(max_length=1024)
    """One sentence with the numbers."""
    checks: tuple[CheckResult, ...] = Field(max_length=16)
    """Every check, in order."""
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=8)
    """Diagnosis runs asked for; empty when nothing more is to be learnt cheaply."""
    retune: float | None = Field(default=None, gt=0)
    """Learning-rate factor with which the whole rung is to be rerun."""
    digest: str = Field(default="", max_length=80)
    """Of all the rest; what a person approves."""

    def sealed(self) -> "Verdict":
        """The same verdict with its digest."""
        bare = self.changed(digest="")
        return bare.changed(digest=bare.content_digest)
