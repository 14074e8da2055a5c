"""A fit: what `lawkit.fit` returns, what a fit folder holds, and what predictions come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.estimate import Estimate
from lawkit.fitting.holdout import errors
from lawkit.fitting.solver import tame
from lawkit.laws._law import Law
from lawkit.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted losses.

    Attributes
    ----------
    mean
        (n, E) nats per token.
    lower, upper
        (n, E) ends of the central band; None unless asked for.
    level
        Its nominal coverage.
    kind
        What sort of band it is.
    capped
        How many cells were held at the domain's highest observed loss.
    warnings
        Sizes that were asked for and change nothing.
    """

    mean: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    level: float | None = None
    kind: str | None = None
    capped: int = 0
    warnings: tuple[str, ...] = ()


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
        mre, mae, rmse over all fitted cells; `domain_train` the same by domain.
    holdout
        The same for runs held out of a separate fit, with `what` was held out and the number `n_runs`; or None.
    domain_holdout
        By domain, mre, mae, rmse of the held-out runs.
    holdout_spread
        (E,) 90% quantile of the absolute log residuals held out, and `holdout_reach`, how far (in log compute)
        they lay beyond the runs fitted; None without hold-out.
    warnings
        What a reader should know before trusting it.
    """

    runs: Runs
    estimate: Estimate
    train: dict[str, float | None]
    domain_train: dict[str, dict[str, float | None]]
    holdout: dict[str, Any] | None = None
    domain_holdout: dict[str, dict[str, float | None]] = field(default_factory=dict)
    holdout_spread: np.ndarray | None = None
    holdout_reach: float = 0.0
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

    @property
    def noise(self) -> np.ndarray:
        """(E,) standard deviation of the log residuals."""
        return self.estimate.noise

    @property
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
            For an interval outside (0, 1), sizes that are not positive, or weights of the wrong shape.

        Notes
        -----
        At scales at or above the smallest fitted one a prediction is held at the highest loss observed in its domain:
        more compute does not make a model worse than the worst of the smallest ones, and laws with a power of a
        weight can say so where a domain's own source is absent. `capped` counts such cells.

        The band is the Gauss-Newton posterior predictive on log loss. Beyond the fitted scales it is widened
        to the held-out errors, in proportion to the distance in log compute; inside, parameters and noise are
        all there is.
        """
        if interval is not None and not 0 < interval < 1:
            raise FitError(f"interval must lie between 0 and 1, got {interval!r}")
        e = self.estimate
        x = e.inputs(*self._points(n_params, n_tokens, weights, unique))
        unseen = [
            c
            for c, v in (("n_params", n_params), ("n_tokens", n_tokens))
            if v is not None and c not in e.recorded
        ]
        warnings = tuple(
            f"{c} is ignored: the fitted runs have no such column, so their losses say nothing about other sizes"
            for c in unseen
        )
        law_says = e.losses(x)
        ceiling = np.nanmax(self._observed(), 0)
        capped = (self._reach(x) >= 0)[:, None] & (law_says > ceiling)
        mean = np.where(capped, ceiling, law_says)
        if interval is None:
            return Prediction(mean=mean, capped=int(capped.sum()), warnings=warnings)
        from scipy.stats import norm

        with np.errstate(all="ignore"):
            slope = tame(e.parameter_jacobian(x) / law_says[:, :, None])  # (n, E, P)
        variance = np.stack(
            [((slope[:, i] @ e.covariance_of(i)) * slope[:, i]).sum(1) for i in range(len(e.domains))], 1
        )
        half = norm.ppf(0.5 + interval / 2) * np.sqrt(np.maximum(variance, 0.0) + e.noise**2)
        kind = "Gauss-Newton posterior predictive"
        if self.holdout_spread is not None and self.holdout_reach > 0:
            # The held-out quantile is of the 90% kind; other levels scale it as a normal would.
            level = norm.ppf(0.5 + interval / 2) / norm.ppf(0.95)
            beyond = self._reach(x, highest=True)
            spread = self.holdout_spread * level * np.maximum(1.0, beyond[:, None] / self.holdout_reach)
            half = np.where(beyond[:, None] > 0.02, np.maximum(half, spread), half)
            kind += ", widened to the held-out errors beyond the fitted scales"
        half = np.minimum(half, 500.0)  # e^500: anything goes
        return Prediction(
            mean=mean, lower=mean * np.exp(-half), upper=mean * np.exp(half), level=interval, kind=kind,
            capped=int(capped.sum()), warnings=warnings,
        )  # fmt: skip

    def _points(self, n_params: Any, n_tokens: Any, weights: Any, unique: Any) -> tuple[Any, Any, Any, Any]:
        """Weights (n, K) first, then sizes and unique tokens, checked and of one length."""
        sizes: dict[str, np.ndarray | None] = {}
        for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
            sizes[name] = size = None if value is None else np.atleast_1d(np.asarray(value, float))
            if size is not None and not ((size > 0) & np.isfinite(size)).all():
                raise FitError(f"{name} must be positive, got {value!r}")
        if weights is None:
            if "weights" in self.law.columns:
                raise FitError(
                    f"law {self.law.name!r} needs weights of its {len(self.sources)} sources "
                    f"({', '.join(self.sources)})"
                )
            weights = np.full((1, len(self.sources)), 1 / max(1, len(self.sources)))  # of no consequence
        weights = np.atleast_2d(np.asarray(weights, float))
        if weights.ndim != 2 or weights.shape[1] != len(self.sources):
            raise FitError(
                f"weights need one column for each of {len(self.sources)} sources ({', '.join(self.sources)}), "
                f"got shape {weights.shape}"
            )
        if not ((weights >= 0) & np.isfinite(weights)).all():
            raise FitError(
                f"weights must be finite and not negative, got {weights[~(weights >= 0)].ravel()[:1]}"
            )
        unique = None if unique is None else np.atleast_2d(np.asarray(unique, float))
        if "unique" in self.law.columns and unique is None:
            raise FitError(f"law {self.law.name!r} needs `unique`, the tokens that exist of each source")
        given = {"weights": weights, "unique": unique, **sizes}
        lengths = {name: len(v) for name, v in given.items() if v is not None and len(v) != 1}
        if len(set(lengths.values())) > 1:
            raise FitError(
                f"one row per point is needed, got {', '.join(f'{k} for {v}' for k, v in lengths.items())}"
            )
        n = max(lengths.values(), default=1)
        if "unique" in self.law.columns and np.isnan(np.where(weights > 0, unique, 0.0)).any():  # type: ignore[arg-type]
            raise FitError(
                f"law {self.law.name!r} needs `unique` of every source with a weight; some are missing"
            )
        wide = {k: None if v is None else np.broadcast_to(v, (n, *v.shape[1:])) for k, v in given.items()}
        return wide["weights"], wide["n_params"], wide["n_tokens"], wide["unique"]

    def _observed(self) -> np.ndarray:
        return self.runs.losses[:, [self.runs.domains.index(d) for d in self.domains]]

    def _reach(self, x: Any, highest: bool = False) -> np.ndarray:
        """(n,) how far, in log compute, rows lie beyond the largest (or smallest) fitted sizes."""
        total = np.zeros(len(x.weights))
        for asked, fitted in ((x.n_params, self.runs.n_params), (x.n_tokens, self.runs.n_tokens)):
            if fitted is not None:
                if highest:
                    total += np.maximum(np.log(asked / fitted.max()), 0.0)
                else:
                    total = np.minimum(total, np.log(asked / fitted.min()) + 0.02)
        return total

    # ---- saying and storing -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The object of `lawkit fit --json`."""
        e = self.estimate
        natural = self.parameters
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
                    "train": self.domain_train[d],
                    "holdout": self.domain_holdout.get(d),
                    "noise": float(e.noise[i]),
                    "starts_at_optimum": float(e.starts_at_optimum[0 if self.law.coupled else i]),
                    "objective": float(e.cost[0 if self.law.coupled else i]),
                }
                for i, d in enumerate(e.domains)
            },
            "diagnostics": self.diagnostics,
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
