"""A fit: what `lawkit.fit` returns, what a fit folder holds, and what predictions come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lawkit.fitting.bands import Rolling
from lawkit.fitting.draws import Draws
from lawkit.fitting.estimate import Estimate
from lawkit.fitting.holdout import errors
from lawkit.fitting.prediction import Prediction, points, predict
from lawkit.io._json import finite
from lawkit.laws._law import Law
from lawkit.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law with the runs it was fitted to.

    Attributes
    ----------
    runs
        The runs table that was fitted.
    estimate
        Parameters on the unconstrained scale, covariance, noise.
    train
        mre, mae, rmse of `predict` over all fitted cells; `domain_train` the same by domain.
    holdout
        The same for runs held out of a separate fit, with `what` was held out and the number `n_runs`; or None.
    domain_holdout
        By domain, mre, mae, rmse of the held-out runs.
    draws
        Of the posterior or the bootstrap, where one was asked for.
    netcdf
        The posterior as `arviz.from_netcdf` reads it, or the file that holds it; None without one.
    warnings
        What a reader should know before trusting it.
    """

    runs: Runs
    estimate: Estimate
    train: dict[str, float | None]
    domain_train: dict[str, dict[str, float | None]]
    holdout: dict[str, Any] | None = None
    domain_holdout: dict[str, dict[str, float | None]] = field(default_factory=dict)
    draws: Draws | None = None
    netcdf: bytes | Path | None = field(default=None, repr=False)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    # ---- what was fitted --------------------------------------------------------------------------------

    @property
    def law(self) -> Law:
        """The law."""
        return self.estimate.law

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources, the order of all weights."""
        return self.runs.sources

    @property
    def domains(self) -> tuple[str, ...]:
        """Evaluation domains fitted, the order of all losses."""
        return self.estimate.domains

    @property
    def reference(self) -> dict[str, float]:
        """Geometric means of n_params and n_tokens over the fitted runs."""
        return {"n_params": self.estimate.n_ref, "n_tokens": self.estimate.d_ref}

    @property
    def z(self) -> np.ndarray:
        """(G, P) parameters on the unconstrained scale; G is 1 for a coupled law, else the number of domains."""
        return self.estimate.z

    @property
    def covariance(self) -> np.ndarray:
        """(G, P, P) their Gauss-Newton posterior covariance."""
        return self.estimate.covariance

    def draw(self, count: int, seed: int = 0) -> np.ndarray:
        """(count, G, P) draws of the parameters on the unconstrained scale.

        Those of `draws` in an order that the seed decides (each once before any twice), or of the normal with
        `covariance` around `z` where the fit has none.
        """
        rng = np.random.default_rng(seed)
        if self.draws is not None:
            rounds = -(-count // len(self.draws))
            order = np.concatenate([rng.permutation(len(self.draws)) for _ in range(rounds)])
            return self.draws.z[order[:count]]
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return self.z + np.einsum("gpq,sgq->sgp", root, rng.standard_normal((count, *self.z.shape)))

    @property
    def noise(self) -> np.ndarray:
        """(E,) standard deviation of the log residuals of a run of weight 1; see `noise_at`."""
        return self.estimate.noise

    def noise_at(self, n_tokens: np.ndarray) -> np.ndarray:
        """(n, E) standard deviation of the log residuals of runs of `n_tokens` (n,).

        An objective that weighs runs by a power of their tokens (transfer laws) takes the noise of a run to fall as
        one over the root of its weight. No run is taken to be more exact than the fitted one with the most tokens.
        """
        power, fitted = self.estimate.objective.token_power, self.runs.n_tokens
        if power == 0 or fitted is None:
            return np.broadcast_to(self.noise, (len(n_tokens), len(self.domains)))
        seen = ~np.isnan(self.observed)
        mean = np.where(seen, fitted[:, None] ** power, 0.0).sum(0) / seen.sum(0)
        weight = np.minimum(n_tokens, fitted.max())[:, None] ** power / mean
        return self.noise / np.sqrt(weight)

    @cached_property
    def rolling(self) -> Rolling | None:
        """What earlier forecasts of this law on these runs say of the next; made when first asked for, and saved."""
        from lawkit.fitting.bands import rolling_origin

        return rolling_origin(self)

    @cached_property
    def echo(self) -> np.ndarray:
        """(G, P) parameters of a fit to the losses that this one predicts for its runs; see `lawkit.fitting.echo`."""
        from lawkit.fitting.echo import echo

        return echo(self)

    @property
    def observed(self) -> np.ndarray:
        """(n, E) losses of the fitted runs in the order of `domains`; NaN where missing."""
        return self.runs.losses[:, [self.runs.domains.index(d) for d in self.domains]]

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Natural parameters by domain: floats, and arrays over sources; for a coupled law each domain has all."""
        e = self.estimate
        natural = [e.law.natural(z, e.n_ref, e.d_ref) for z in e.z]
        return {d: natural[0 if e.law.coupled else i] for i, d in enumerate(e.domains)}

    # ---- prediction -------------------------------------------------------------------------------------

    def losses(
        self, n_params: Any, n_tokens: Any, weights: np.ndarray, unique: np.ndarray | None = None
    ) -> np.ndarray:
        """Losses (n, E) of the law at n points, as it stands (see `predict` for bands and bounds).

        Parameters
        ----------
        n_params, n_tokens
            Scalars or (n,); None for the geometric mean of the fitted runs.
        weights
            (n, K), or (n, 0) for a law without sources.
        unique
            (n, K) tokens that exist of each source.
        """
        return self.estimate.losses(self.estimate.inputs(weights, n_params, n_tokens, unique))

    def weights_derivatives(
        self,
        n_params: float | None,
        n_tokens: float | None,
        weights: np.ndarray,
        unique: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (E,), gradients (E, K) and Hessians (E, K, K) in the mixture `weights` (K,) at one scale."""
        e = self.estimate
        x = e.inputs(weights[None], n_params, n_tokens, None if unique is None else unique[None])
        parts = e.law.function.hessian(e.z, x, ("weights",))
        if e.law.coupled:
            return parts[0][0, 0], parts[1][0, 0], parts[2][0, 0]
        return parts[0][:, 0, 0], parts[1][:, 0, 0], parts[2][:, 0, 0]

    def predict(
        self,
        n_params: Any = None,
        n_tokens: Any = None,
        weights: np.ndarray | None = None,
        unique: np.ndarray | None = None,
        interval: float | None = None,
    ) -> Prediction:
        """Losses with an optional central band.

        Parameters
        ----------
        n_params, n_tokens, weights, unique
            As for `losses`; `weights` may be left out for a law without sources.
        interval
            Nominal coverage in (0, 1), say .9.

        Raises
        ------
        FitError
            For an interval outside (0, 1), sizes that are not positive, weights of the wrong shape, or weights that
            do not sum to 1 within 1e-3 (within it they are normalised).

        Notes
        -----
        More compute does not make a model worse than the worst of the smaller ones, and laws with a power of a weight
        can say so where a domain's own source is absent. So, for laws with weights, a point is held at the highest
        loss observed in a domain if some fitted run with a loss there has at most the point's n_params and
        at most its n_tokens (within 2%). `capped` counts such cells.

        The band is the posterior predictive on log loss, of `draws` where the fit has some, else of the Gauss-Newton
        normal with the noise of `noise_at`. Outside the scales of the fitted runs it is widened to what
        `lawkit.fitting.bands` learns from earlier forecasts of this law on these runs; `kind` says what was done.
        """
        x = self.estimate.inputs(*points(self, n_params, n_tokens, weights, unique))
        unseen = [
            c
            for c, v in (("n_params", n_params), ("n_tokens", n_tokens))
            if v is not None and c not in self.estimate.recorded
        ]
        warnings = tuple(
            f"{c} is ignored: the fitted runs have no such column, so their losses say nothing about other sizes"
            for c in unseen
        )
        return replace(predict(self, x, interval), warnings=warnings)

    # ---- saying and storing -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The object of `lawkit fit --json`."""
        e = self.estimate
        natural = self.parameters
        posterior: dict[str, Any] = {}
        if self.draws is not None:
            from lawkit.fitting.sampling import summary

            posterior = summary(self)
        return {
            "law": self.law.name,
            "formula": getattr(self.law, "formula", None),
            "fixed": dict(self.law.fixed),
            "n_runs": len(self.runs),
            "sources": list(self.sources),
            "reference": self.reference,
            "train": self.train,
            "holdout": self.holdout,
            "domains": {
                d: {
                    "parameters": {
                        k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in natural[d].items()
                    },
                    "posterior": finite(posterior.get(d)),
                    "train": self.domain_train[d],
                    "holdout": self.domain_holdout.get(d),
                    "noise": float(e.noise[i]),
                    "starts_at_optimum": float(e.starts_at_optimum[0 if self.law.coupled else i]),
                    "objective": float(e.cost[0 if self.law.coupled else i]),
                }
                for i, d in enumerate(e.domains)
            },
            "diagnostics": self.diagnostics,
            "draws": None
            if self.draws is None
            else {
                "kind": self.draws.kind,
                "count": len(self.draws),
                "noise": self.draws.noise_model.kind,
                "diagnostics": finite(self.draws.diagnostics),
                "warnings": list(self.draws.warnings),
            },
            "warnings": list(self.warnings),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fit folder, which `load_fit` reads; an older fit in it is replaced in one step.

        Raises
        ------
        FitError
            If `folder` holds other files and no fit (nothing of it is touched), cannot be written, or the law is
            not one that could be found again.
        """
        from lawkit.fitting.storage import save_fit

        save_fit(self, folder)


def domain_errors(
    predicted: np.ndarray, observed: np.ndarray, domains: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """`errors` by domain, for (n, E) arrays."""
    return {d: errors(predicted[:, i], observed[:, i]) for i, d in enumerate(domains)}
