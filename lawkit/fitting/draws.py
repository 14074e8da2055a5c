"""Draws of a fit's parameters: what a posterior or a bootstrap leaves for predictions and decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lawkit.errors import FitError
from lawkit.runs import Runs

Noise = Literal["constant", "size", "mixture"]
DrawsKind = Literal["laplace", "nuts", "bootstrap"]


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """What the log of the noise depends on, beside the domain: C covariates, centred and in standard deviations.

    Attributes
    ----------
    kind
        'constant' (C = 0), 'size' (log of 1/n_params), or 'mixture' (the weights that vary, all but the last).
    used
        (C,) indices of sources for 'mixture', (0,) for 'size'.
    mean, sd
        (C,) over the fitted runs.
    """

    kind: Noise = "constant"
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sd: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, runs: Runs, kind: Noise) -> NoiseModel:
        """The noise model of a kind, standardised on `runs`.

        Raises
        ------
        FitError
            If what it depends on does not vary.
        """
        if kind == "constant":
            return cls()
        if kind == "size":
            if runs.n_params is None or np.ptp(np.log(runs.n_params)) < 0.02:
                raise FitError(
                    "noise cannot grow with 1/n_params where n_params does not vary: use constant noise"
                )
            used, raw = np.zeros(1, int), -np.log(runs.n_params)[:, None]
        elif kind == "mixture":
            varies = np.flatnonzero(np.ptp(runs.weights, axis=0) > 1e-6) if runs.sources else np.zeros(0, int)
            if len(varies) < 2:
                raise FitError("noise cannot depend on the mixture where no weights vary: use constant noise")
            used = varies[:-1]  # the last weight follows from the others
            raw = runs.weights[:, used]
        else:
            raise FitError(f"noise must be 'constant', 'size' or 'mixture', got {kind!r}")
        return cls(kind=kind, used=used, mean=raw.mean(0), sd=raw.std(0))

    def columns(self, n_params: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
        """(n, C) covariates of runs of `n_params` (n,) and `weights` (n, K)."""
        if self.kind == "constant":
            return np.zeros((len(weights), 0))
        if self.kind == "size":
            assert n_params is not None
            raw = -np.log(n_params)[:, None]
        else:
            raw = weights[:, self.used]
        return (raw - self.mean) / self.sd


@dataclass(frozen=True, kw_only=True)
class Draws:
    """S equally likely parameter vectors for each of G groups (a domain, or all domains of a coupled law).

    Attributes
    ----------
    kind
        'laplace', 'nuts' or 'bootstrap'.
    z
        (S, G, P) on the unconstrained scale. Draw s of one group belongs to draw s of the others.
    noise
        (S, E) scale of the log residuals of a run of weight 1 (see `Fit.noise_at`) where all covariates are 0.
    nu
        (S, E) degrees of freedom of their Student-t distribution; infinity for a normal one.
    eta
        (S, E, C) slopes of log noise in the covariates of `noise_model`.
    noise_model
        What the covariates are.
    diagnostics
        What is known of how the draws came about: R-hat, effective sample sizes, divergences, seconds.
    warnings
        What a reader should know before trusting them.
    """

    kind: DrawsKind
    z: np.ndarray
    noise: np.ndarray
    nu: np.ndarray
    eta: np.ndarray
    noise_model: NoiseModel = field(default_factory=NoiseModel)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.z)
