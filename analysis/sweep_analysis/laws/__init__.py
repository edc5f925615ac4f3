"""The laws, one family a file; `LAWS` is the catalogue by name."""

from sweep_analysis.laws.base import Axis, Constant, Law
from sweep_analysis.laws.batch import BatchTradeoff, CriticalBatch, StepBatch, StepLearningRate
from sweep_analysis.laws.broken import BrokenPower
from sweep_analysis.laws.chinchilla import Chinchilla
from sweep_analysis.laws.compute import ContextLength, SaturatingCompute
from sweep_analysis.laws.downstream import DownstreamExponential, DownstreamSigmoid
from sweep_analysis.laws.experts import FineGrainedExperts, RoutedExperts
from sweep_analysis.laws.finetuning import FineTuning, InstructionData
from sweep_analysis.laws.kaplan import (
    KaplanCompute,
    KaplanParameters,
    KaplanParametersSteps,
    KaplanParametersTokens,
    KaplanTokens,
)
from sweep_analysis.laws.overtraining import OverTraining
from sweep_analysis.laws.repeated import RepeatedData
from sweep_analysis.laws.reward import RewardBestOfN, RewardReinforcement
from sweep_analysis.laws.transfer import ConstantOffset

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Chinchilla(),
        SaturatingCompute(),
        OverTraining(),
        RepeatedData(),
        KaplanParameters(),
        KaplanTokens(),
        KaplanCompute(),
        KaplanParametersTokens(),
        KaplanParametersSteps(),
        FineGrainedExperts(),
        RoutedExperts(),
        BrokenPower(),
        ContextLength(),
        FineTuning(),
        InstructionData(),
        DownstreamSigmoid(),
        DownstreamExponential(),
        RewardBestOfN(),
        RewardReinforcement(),
        CriticalBatch(),
        BatchTradeoff(),
        StepLearningRate(),
        StepBatch(),
        ConstantOffset(),
    )
}


def law_of(name: "str | Law") -> Law:
    """The law of that name. Raises ValueError that lists the names."""
    if isinstance(name, Law):
        return name
    if name not in LAWS:
        plain = str(name).lower().replace("-", "").replace("_", "")
        close = next((known for known in LAWS if known.lower() == plain), None)
        hint = f"did you mean {close}?" if close else f"known: {', '.join(LAWS)}"
        raise ValueError(f"no law is called {name!r}; {hint}")
    return LAWS[name]


__all__ = ["LAWS", "Axis", "Constant", "Law", "law_of"]
