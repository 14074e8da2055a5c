"""The scale of a run as laws measure it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The run to plan: its size, and the sizes that the law measures it by.

    Attributes
    ----------
    n_params, n_tokens
        Of the run; 1 where the fit has no such column.
    n_ref, d_ref
        The fit's reference sizes.
    """

    n_params: float = 1.0
    n_tokens: float = 1.0
    n_ref: float = 1.0
    d_ref: float = 1.0

    @property
    def n(self) -> float:
        """n_params in units of its reference."""
        return self.n_params / self.n_ref

    @property
    def d(self) -> float:
        """n_tokens in units of its reference."""
        return self.n_tokens / self.d_ref
