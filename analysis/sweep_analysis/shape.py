"""From one dial to a decoder: how many layers, how wide, and exactly how many parameters.

Owns the arithmetic of a decoder's shape (RMSNorm, RoPE, SwiGLU, grouped queries, experts; the Hugging Face families of
`architectures.py`). Builds no model: the trainer does, and a test holds its count against the one here.
"""

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, model_validator

from sweep_analysis.architectures import Block, Facts, experts_in, facts_of, refuse
from sweep_analysis.document import Document


class Experts(Document):
    """A mixture of experts in place of each block's SwiGLU: a router sends every token to a few of them, dropping none.

    Shazeer et al. 2017, arXiv:1701.06538; shared experts as in Dai et al. 2024, arXiv:2401.06066.
    """

    count: int = Field(ge=2, le=1024)
    """Routed experts in each block."""
    top_k: int = Field(default=2, ge=1, le=64)
    """How many of them a token passes through, weighted by the router's probabilities, which are scaled to sum to 1."""
    shared: int = Field(default=0, ge=0, le=64)
    """Experts that every token passes through besides."""
    hidden: int | None = Field(default=None, ge=8, le=1 << 20)
    """Inner width of one expert; when left out, the dense block's divided by topK + shared, so that a token meets about
    as many weights as in the dense model of the same width."""
    load_balance: float = Field(default=0.01, ge=0, le=10)
    """Weight of the load-balancing loss (Fedus et al. 2021, arXiv:2101.03961, equation 4), summed over blocks."""
    z_loss: float = Field(default=0.001, ge=0, le=10)
    """Weight of the router's z-loss (Zoph et al. 2022, arXiv:2202.08906, equation 5), summed over blocks."""

    @model_validator(mode="after")
    def _enough(self) -> "Experts":
        if self.top_k > self.count:
            raise ValueError(f"experts.topK ({self.top_k}) is more than experts.count ({self.count})")
        return self


class Model(Document):
    """The model family and what of its shape the user fixes; what is left out is derived from the parameter count."""

    family: Literal["Decoder", "HuggingFace"] = "Decoder"
    """`Decoder`: RMSNorm before each block, rotary positions, SwiGLU, no biases. `HuggingFace`: `architecture`, as
    the `transformers` library builds it."""
    architecture: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Which Hugging Face causal language model, by the name that `transformers` gives its `model_type` (`gpt2`,
    `llama`, `qwen3`); with family HuggingFace only."""
    configuration: dict[str, Any] | None = Field(default=None, max_length=64, exclude_if=lambda fields: not fields)
    """Fields of that model's own configuration, laid over those that the rules set (`rms_norm_eps`, `hidden_act`); with
    family HuggingFace only. Sizes follow from `parameters`, `width`, `layers` and `heads`, and are refused here."""
    width: int | None = Field(default=None, ge=8, le=65_536)
    """Width of the residual stream; derived from the parameter count when left out."""
    layers: int | None = Field(default=None, ge=1, le=512)
    """Number of blocks; derived from the width when left out."""
    heads: int | None = Field(default=None, ge=1, le=1024)
    """Query heads; derived from the width when left out."""
    kv_heads: int | None = Field(default=None, ge=1, le=1024)
    """Key and value heads, which groups of query heads share (Ainslie et al. 2023, arXiv:2305.13245); when left out, as
    many as query heads. Must divide them at every size of the ladder."""
    head_size: int | None = Field(default=None, ge=2, le=1024)
    """Channels of one head; width divided by heads when left out."""
    qk_norm: bool = Field(default=False, exclude_if=lambda on: not on)
    """Whether queries and keys are normed over each head (Henry et al. 2020, arXiv:2010.04245)."""
    tied_embeddings: bool = True
    """Whether the output projection shares the embedding's weights."""
    experts: Experts | None = None
    """Makes every block a mixture of experts."""

    @model_validator(mode="after")
    def _of_one_family(self) -> "Model":
        if (self.family == "HuggingFace") != (self.architecture is not None):
            raise ValueError("model.architecture goes with family HuggingFace, and that family needs it")
        if self.architecture is None:
            if self.configuration:
                raise ValueError("model.configuration goes with family HuggingFace; leave it out with family Decoder")
            return self
        if self.experts or self.qk_norm:
            raise ValueError(
                "experts and qkNorm are the Decoder family's; a Hugging Face architecture has its own norms"
            )
        facts = facts_of(self.architecture)
        if facts.ties != "either" and (facts.ties == "always") != self.tied_embeddings:
            how, set_so = ("shares", "true") if facts.ties == "always" else ("does not share", "false")
            raise ValueError(
                f"{self.architecture}'s output projection {how} the embedding's weights; set tiedEmbeddings: {set_so}"
            )
        refuse(self.configuration or {}, self.architecture)
        if not facts.heads and self.heads:
            raise ValueError(f"{self.architecture} has no attention heads; leave heads out")
        if not facts.grouped_queries and self.kv_heads:
            raise ValueError(f"{self.architecture} has as many key heads as query heads; leave kvHeads out")
        if not facts.free_head_size and self.head_size:
            raise ValueError(f"{self.architecture}'s head size is its width divided by its heads; leave headSize out")
        if self.layers is not None and self.layers < facts.least_layers:
            raise ValueError(f"{self.architecture} needs {facts.least_layers} layers or more, not {self.layers}")
        return self

    def __hash__(self) -> int:
        return hash((self.architecture, self.width, self.layers, self.heads))  # `configuration` alone could be none


class Shape(Document):
    """One decoder's exact dimensions."""

    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    heads: int = Field(ge=1)
    hidden: int = Field(ge=2)
    """Inner width of the SwiGLU block; of one expert where there are experts."""
    vocabulary: int = Field(ge=2)
    tied_embeddings: bool = True
    kv_heads: int | None = Field(default=None, ge=1)
    """None: as many as query heads."""
    own_head_size: int | None = Field(default=None, ge=2, alias="headSize")
    """None: width divided by heads."""
    qk_norm: bool = Field(default=False, exclude_if=lambda on: not on)
    experts: Experts | None = None
    architecture: str | None = None
    """The Hugging Face family, or None for our own decoder."""
    configuration: dict[str, Any] | None = Field(default=None, exclude_if=lambda fields: not fields)
    """What the recipe lays over that family's configuration."""
    positions: int | None = Field(default=None, exclude_if=lambda count: count is None)
    """Of a table of learnt positions, where the family has one."""
    scalar_head: bool = Field(default=False, exclude_if=lambda on: not on)
    """Whether the output is one score (a reward model) instead of logits; the embedding is then tied to nothing."""

    @property
    def head_size(self) -> int:
        return self.own_head_size or self.width // self.heads

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def attention_width(self) -> int:
        """Channels of all query heads side by side."""
        return self.heads * self.head_size

    @property
    def score_widths(self) -> float:
        """Of all blocks together those that meet the other positions' in attention scores: none in a state space
        model's, and in those alone that attend where only some do."""
        facts = self._facts
        if facts is None:
            return self.layers * self.attention_width
        numbers = facts.numbers(self.layers)
        return self.attention_width * sum(n * b.scores for n, b in zip(numbers, facts.blocks, strict=True))

    @property
    def _facts(self) -> Facts | None:
        return facts_of(self.architecture) if self.architecture else None

    @property
    def _sizes(self) -> dict[str, int]:
        """The dimensions by the names of `architectures`."""
        return {
            "w": self.width,
            "a": self.attention_width,
            "q": self.key_heads * self.head_size,
            "d": self.head_size,
            "h": self.heads,
            "k": self.key_heads,
            "f": self.hidden,
            "r": -(-self.width // 16),
            "V": self.vocabulary,
            "s": self.positions or 0,
        }

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embeddings, and of the output projection when it is not tied."""
        facts = self._facts
        if facts is not None:
            sizes = self._sizes
            output = 0 if self.tied_embeddings else facts.untied(sizes)
            return facts.around(sizes) - facts.around(sizes | {"V": 0, "s": 0}) + output
        embedding = self.vocabulary * self.width
        if self.scalar_head:
            return embedding + self.width
        return embedding * (1 if self.tied_embeddings else 2)

    @property
    def attention_weights(self) -> int:
        """Weights of one block's attention matrices; 4w² where queries are not grouped and heads fill the width."""
        return 2 * self.width * (self.attention_width + self.key_heads * self.head_size)

    def _feed_forward(self, experts_met: int) -> int:
        """Weights of one block's feed-forward part, counting so many routed experts."""
        one = 3 * self.width * self.hidden
        if self.experts is None:
            return one
        return self.width * self.experts.count + (experts_met + self.experts.shared) * one

    @property
    def block_weights(self) -> int:
        """Weights of all matrices of one block, the largest kind where there are several."""
        facts = self._facts
        if facts is not None:
            return max(self._block(facts, block, least=2) for block in facts.blocks)
        return self.attention_weights + self._feed_forward(self.experts.count if self.experts else 1)

    @property
    def met_weights(self) -> int:
        """Weights of all blocks' matrices that one token is multiplied by, each as many times as it is."""
        facts = self._facts
        if facts is not None:
            numbers = zip(facts.numbers(self.layers), facts.blocks, strict=True)
            met = sum(n * self._met(facts, block) for n, block in numbers)
            return round(facts.passes * met)
        return self.layers * (self.attention_weights + self._feed_forward(self.experts.top_k if self.experts else 1))

    def _block(self, facts: Facts, block: Block, least: int = 0) -> int:
        """Parameters of one block of a Hugging Face family, its matrices alone where `least` is 2."""
        if facts.experts is None:
            return block.own(self._sizes, least=least)
        count, _ = experts_in(facts.experts, self.configuration)
        router = block.each(self._sizes) - block.weights(self._sizes)  # a row of a matrix an expert
        return block.own(self._sizes, least=least) + count * (block.weights(self._sizes, least=least) + router)

    def _met(self, facts: Facts, block: Block) -> int:
        """Weights of one block's matrices that a token is multiplied by, those that it shares among them."""
        own = self._block(facts, block, least=2) - self._unmet(facts, block, least=2)
        return own + block.shared(self._sizes, least=2)

    def _unmet(self, facts: Facts, block: Block, least: int = 0) -> int:
        """Parameters of one block that a token does not pass through."""
        if facts.experts is None:
            return 0
        count, met = experts_in(facts.experts, self.configuration)
        return (count - met) * block.weights(self._sizes, least=least)

    @property
    def _small_parameters(self) -> int:
        """Gains and biases of one block."""
        return 2 * self.width + (2 * self.head_size if self.qk_norm else 0)

    @property
    def non_embedding_parameters(self) -> int:
        """Attention, feed-forward, norms and biases of all blocks, and the final norm."""
        facts = self._facts
        if facts is not None:
            numbers = zip(facts.numbers(self.layers), facts.blocks, strict=True)
            blocks = sum(n * self._block(facts, block) for n, block in numbers)
            return blocks + facts.around(self._sizes | {"V": 0, "s": 0})
        return self.layers * (self.block_weights + self._small_parameters) + self.width

    @property
    def parameters(self) -> int:
        """N, all trainable parameters."""
        return self.embedding_parameters + self.non_embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: N without the experts that it is not sent to."""
        facts = self._facts
        if facts is not None:
            numbers = zip(facts.numbers(self.layers), facts.blocks, strict=True)
            return self.parameters - sum(n * self._unmet(facts, block) for n, block in numbers)
        return self.parameters - self.layers * self.block_weights + self.met_weights


def layers_of_width(width: int) -> int:
    """Blocks for a width: width/layers is 64 at 768 and about 125 at 4,096, where published dense models stand."""
    return max(3, round(width / (64 * math.pow(width / 768, 0.4))))


def shape_of_width(width: int, vocabulary: int, model: Model, layers: int, positions: int | None = None) -> Shape:
    """The decoder of a given width and depth, by the rules below.

    Heads are about 32 wide up to width 128, 64 up to 2,048, 128 beyond, and from width 128 on a multiple of 8, which
    fused attention kernels ask for; SwiGLU's hidden width is 8/3 of the width (Shazeer 2020, arXiv:2002.05202),
    rounded to a multiple of 8, and four times the width in architectures without a gate.
    """
    facts = facts_of(model.architecture) if model.architecture else None
    fixed: dict[str, Any] = {"experts": model.experts, "qk_norm": model.qk_norm}
    fixed |= {"architecture": model.architecture, "configuration": model.configuration}
    hidden = max(8, 8 * round(width / 3)) if facts is None or facts.gated else 4 * width
    if facts and facts.experts:
        hidden = max(8, 8 * round(hidden / (8 * experts_in(facts.experts, model.configuration)[1])))
    if model.experts:
        hidden = model.experts.hidden or max(8, 8 * round(hidden / (8 * (model.experts.top_k + model.experts.shared))))
    return Shape(
        layers=layers,
        width=width,
        heads=_heads(width, model),
        hidden=hidden,
        vocabulary=vocabulary,
        tied_embeddings=model.tied_embeddings,
        kv_heads=model.kv_heads,
        own_head_size=model.head_size,
        positions=positions if facts and facts.positions else None,
        **fixed,
    )


def _heads(width: int, model: Model) -> int:
    if model.heads is not None:
        return model.heads
    head = model.head_size or (32 if width <= 128 else 64 if width <= 2048 else 128)
    least = facts_of(model.architecture).heads_multiple if model.architecture else 1
    most = max(least, width // head)
    groups = math.lcm(model.kv_heads or 1, least)
    if model.head_size is not None:
        return max(groups, most - most % groups)
    multiple = 2 if width < 128 else 8  # rotary pairs need even heads
    fits = (h for h in range(most, 0, -1) if width % (multiple * h) == 0 and h % groups == 0)
    return next(fits, next(h for h in range(most, 0, -1) if width % (multiple * h) == 0))


def _objection(shape: Shape) -> str | None:
    """Why a decoder cannot be built so, or None."""
    if shape.own_head_size is None and shape.width % shape.heads:
        return f"{shape.heads} heads do not divide the width {shape.width}; set model.headSize, or other heads"
    if shape.head_size % 2:
        return f"heads of {shape.head_size} channels cannot be rotated in pairs; their size must be even"
    multiple = facts_of(shape.architecture).heads_multiple if shape.architecture else 1
    if shape.heads % multiple or shape.key_heads % multiple:
        return (
            f"{shape.architecture} takes heads and key heads in multiples of {multiple},"
            f" not {shape.heads} and {shape.key_heads}; set model.heads, or another width"
        )
    if shape.heads % shape.key_heads:
        return f"model.kvHeads ({shape.key_heads}) does not divide the {shape.heads} heads at width {shape.width}"
    return None


_WIDTHS = [*range(8, 64, 4), *range(64, 128, 16), *range(128, 512, 32), *range(512, 2048, 64), *range(2048, 65537, 128)]


@lru_cache(maxsize=4096)
def shape_for(
    parameters: int, vocabulary: int, model: Model, *, scalar_head: bool = False, positions: int | None = None
) -> Shape:
    """The decoder whose parameter count is nearest to `parameters`; `positions` is the context, where it is counted.

    Widths are multiples of 4 below 64, of 16 below 128, of 32 below 512, of 64 below 2,048 and of 128 above, so that
    kernels are well fed; a depth that the user left open may be one block off its rule where that comes nearer, and any
    where the user fixed the width. Raises ValueError when no shape comes within 25 % of the size asked for, or none
    that could be built.
    """
    shapes = [
        shape_of_width(width, vocabulary, model, layers, positions).model_copy(update={"scalar_head": scalar_head})
        for width in _near(parameters, vocabulary, model, positions)
        for layers in _depths(width, model, parameters, vocabulary, positions)
    ]
    objections = [_objection(shape) for shape in shapes]
    candidates = [shape for shape, objection in zip(shapes, objections, strict=True) if objection is None]
    if not candidates:
        raise ValueError(next(objection for objection in objections if objection))
    best = min(candidates, key=lambda s: abs(s.parameters - parameters))
    if abs(best.parameters - parameters) > 0.25 * parameters:
        raise ValueError(
            f"no decoder with a vocabulary of {vocabulary} comes near {parameters:,} parameters;"
            f" the nearest has {best.parameters:,}"
        )
    return best


def _depths(
    width: int, model: Model, parameters: int, vocabulary: int, positions: int | None = None
) -> tuple[int, ...]:
    """Depths to choose from, the rule's own first, so that it wins a tie."""
    if model.layers is not None:
        return (model.layers,)
    least = facts_of(model.architecture).least_layers if model.architecture else 1
    if model.width is not None:  # the depth alone is left to reach the size

        def count(layers: int) -> int:
            return shape_of_width(width, vocabulary, model, layers, positions).parameters

        above = bisect_left(range(least + 1, 512), parameters, key=count) + least + 1
        return (min(above - 1, above, key=lambda layers: abs(count(layers) - parameters)),)
    rule = max(least, layers_of_width(width))
    return (rule, rule + 1, max(3, least, rule - 1))


def _near(parameters: int, vocabulary: int, model: Model, positions: int | None = None) -> list[int]:
    """The few widths around the size, by bisection: at the rule's depth the count grows with the width."""
    if model.width is not None:
        return [model.width]
    low, high = 0, len(_WIDTHS) - 1
    while high - low > 1:
        middle = (low + high) // 2
        width = _WIDTHS[middle]
        layers = _depths(width, model, parameters, vocabulary, positions)[0]
        if shape_of_width(width, vocabulary, model, layers, positions).parameters <= parameters:
            low = middle
        else:
            high = middle
    reach = 3 if model.kv_heads or model.heads else 1  # some of the widths cannot be divided so
    return _WIDTHS[max(0, low - reach) : high + reach + 1]
