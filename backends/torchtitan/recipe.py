"""How a proxy is trained: defaults by size, every one of which a study may override."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lawkit.backends.torchtitan.ladder import LLAMA3_VOCABULARY, Size
from lawkit.errors import BackendError

#: From this many parameters (with the Llama 3 output layer) on, a model is trained as the published ladder was.
_LARGE = 90e6
#: Peak learning rate of the published ladder, the non-embedding parameters from which smaller models scale it up, and
#: the most that the smallest are given.
_LR, _LR_PARAMS, _MOST_LR = 3e-4, 1e8, 0.02


def is_large(size: Size) -> bool:
    """Whether a model is of the published ladder's kind, 100M and up."""
    return size.n_params_with_head(LLAMA3_VOCABULARY) >= _LARGE


def default_lr(size: Size) -> float:
    """Peak learning rate: 3e-4 from 100M on, below it 3e-4 times the square root of 1e8 over the parameters,
    at most .02.

    The rule is one of thumb. At a million tokens, rates of half to four times .0047 at 27k and .0026 at 160k were tried
    on two sources: the losses fell all the way up, by .3 to .5 nats from the second rate to the fourth. Longer runs and
    larger models want less; a study that compares sizes finely should tune it.

    Examples
    --------
    >>> from lawkit.backends.torchtitan.ladder import find_size
    >>> f"{default_lr(find_size('27k')):.2g} {default_lr(find_size('800k')):.2g} {default_lr(find_size('100M')):.2g}"
    '0.018 0.0033 0.0003'
    """
    return _LR if is_large(size) else min(_MOST_LR, _LR * (_LR_PARAMS / size.n_params) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that is fixed about the training of one run besides its size, tokens, mixture and seed.

    Attributes
    ----------
    seq_len
        Tokens in a row: the context.
    batch_rows
        Rows in a step, over all ranks.
    local_rows
        Rows that one rank takes through the model at once; the rest of its share is accumulated. None: all.
    lr
        Peak learning rate.
    final_lr
        What the cosine ends at, as a fraction of the peak.
    warmup
        Fraction of the steps that the learning rate rises over.
    beta1, beta2, eps, weight_decay
        Of AdamW.
    clip
        Norm that gradients are clipped to.
    precision
        Of the forward and backward passes; weights and optimizer are kept in fp32.
    compile
        Whether torch.compile compiles the blocks.
    recompute
        Activation checkpointing: none, selective (torchtitan's choice of operations) or full.
    eval_rows
        Held-out rows a domain is evaluated on, spread evenly over its held-out text.
    eval_at
        Fractions of the run after which it is evaluated, besides its end.
    log_every
        Steps between two records of the training loss. None: a hundredth of the run.
    checkpoint_every
        Steps between two checkpoints, from which a killed run resumes. None: 50, or a twentieth
        of the run where that is more; 0: only the last.
    keep_checkpoint
        Whether the last checkpoint is kept after the run is finished.
    tensorboard
        Whether torchtitan writes its metrics for TensorBoard into the run's folder.
    deterministic
        Whether torch is held to deterministic algorithms (slower on a GPU; a CPU needs no asking).
    """

    seq_len: int
    batch_rows: int
    local_rows: int | None = None
    lr: float
    final_lr: float = 0.1
    warmup: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: Literal["fp32", "bf16"]
    compile: bool = False
    recompute: Literal["none", "selective", "full"] = "none"
    eval_rows: int = 256
    eval_at: tuple[float, ...] = ()
    log_every: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoint: bool = False
    tensorboard: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "eval_at", tuple(self.eval_at))
        for name, rule, good in (
            ("seq_len", "2 or more", self.seq_len >= 2),
            ("batch_rows", "1 or more", self.batch_rows >= 1),
            ("local_rows", "1 or more", self.local_rows is None or self.local_rows >= 1),
            ("lr", "above 0", self.lr > 0),
            ("final_lr", "from 0 to 1", 0 <= self.final_lr <= 1),
            ("warmup", "from 0 to 1", 0 <= self.warmup <= 1),
            ("beta1", "from 0 to below 1", 0 <= self.beta1 < 1),
            ("beta2", "from 0 to below 1", 0 <= self.beta2 < 1),
            ("eps", "above 0", self.eps > 0),
            ("weight_decay", "0 or more", self.weight_decay >= 0),
            ("clip", "above 0", self.clip > 0),
            ("precision", "fp32 or bf16", self.precision in ("fp32", "bf16")),
            ("recompute", "none, selective or full", self.recompute in ("none", "selective", "full")),
            ("eval_rows", "2 or more (for a standard error)", self.eval_rows >= 2),
            ("eval_at", "fractions between 0 and 1", all(0 < at < 1 for at in self.eval_at)),
            ("log_every", "1 or more", self.log_every is None or self.log_every >= 1),
            ("checkpoint_every", "0 or more", self.checkpoint_every is None or self.checkpoint_every >= 0),
        ):
            if not good:
                raise BackendError(f"recipe.{name} is {getattr(self, name)!r}: it must be {rule}")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return {**asdict(self), "eval_at": list(self.eval_at)}


def recipe_for(size: Size, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of a size with `overrides` in place of the defaults.

    Large models (100M and up of the ladder) default to 4,096 tokens of context, a million tokens a step and bf16, small
    ones to 256 tokens of context, 4,096 tokens a step and fp32.

    Raises
    ------
    BackendError
        For a field that a recipe does not have or a value that it cannot take.

    Examples
    --------
    >>> from lawkit.backends.torchtitan.ladder import find_size
    >>> recipe_for(find_size("27k"), {"batch_rows": 8}).batch_rows
    8
    """
    if is_large(size):
        defaults: dict[str, Any] = {"seq_len": 4096, "batch_rows": 256, "local_rows": 2, "precision": "bf16"}
        defaults["recompute"] = "selective"
    else:
        defaults = {"seq_len": 256, "batch_rows": 16, "precision": "fp32"}
    defaults["lr"] = default_lr(size)
    given = {key: _checked(key, value) for key, value in (overrides or {}).items()}
    return Recipe(**{**defaults, **given})


_KINDS = {field.name: str(field.type) for field in fields(Recipe)}


def _checked(name: str, value: Any) -> Any:
    """A value of the kind that the field is declared with; whole numbers pass for fractional ones."""
    if name not in _KINDS:
        close = difflib.get_close_matches(name, _KINDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(_KINDS)}"
        raise BackendError(f"recipe.{name}: a recipe has no such field; {hint}")
    kind = _KINDS[name]
    if value is None and "None" in kind:
        return None
    if kind.startswith("bool"):
        good = isinstance(value, bool)
    elif kind.startswith("int"):
        good = isinstance(value, int) and not isinstance(value, bool)
    elif kind.startswith("float"):
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    elif kind.startswith("tuple"):
        good = isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value)
    else:
        good = isinstance(value, str)
    if not good:
        wanted = {"tuple[float, ...]": "a list of numbers"}.get(kind, kind.replace(" | None", ""))
        raise BackendError(f"recipe.{name} is {value!r}: it must be {wanted}")
    return value
