"""A fit gets the draws that were asked for: of its posterior, or of refits to resampled runs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lawkit.errors import DrawsError, FitError
from lawkit.fitting.draws import Noise
from lawkit.fitting.prepare import Prepared
from lawkit.fitting.result import Fit

POSTERIORS = ("none", "laplace", "nuts")


def check_draws(posterior: str, bootstrap: int, noise: str, pool: bool) -> None:
    """Refuses what cannot be drawn, before anything is fitted.

    Raises
    ------
    FitError
        Naming the argument and what it may be.
    """
    if posterior not in POSTERIORS:
        raise FitError(f"posterior must be one of {', '.join(POSTERIORS)}, got {posterior!r}")
    if isinstance(bootstrap, bool) or bootstrap != int(bootstrap) or bootstrap < 0:
        raise FitError(f"bootstrap must be a whole number of refits, 0 for none, got {bootstrap!r}")
    if bootstrap and posterior != "none":
        raise FitError("draws come from a posterior or from a bootstrap: ask for one of them")
    if noise not in get_args(Noise):
        raise FitError(f"noise must be one of {', '.join(get_args(Noise))}, got {noise!r}")
    if noise != "constant" and posterior == "none":
        raise FitError(
            f"noise {noise!r} is a part of a posterior: ask for posterior 'laplace' or 'nuts' with it"
        )
    if pool and posterior == "none":
        raise FitError("pooling is a part of a posterior: ask for posterior 'laplace' or 'nuts' with it")


def with_draws(
    fit: Fit,
    ready: Prepared,
    posterior: str,
    bootstrap: int,
    noise: Noise,
    pool: bool,
    seed: int,
    progress: bool,
) -> Fit:
    """The fit with its draws, their warnings, and the posterior as a netCDF file.

    Ctrl-C, and draws that cannot be had, leave the point fit and a warning that says so.
    """
    try:
        if bootstrap:
            from lawkit.fitting.bootstrap import bootstrap as resample

            draws, trace = resample(fit.runs, ready, fit.estimate, bootstrap, seed), None
        else:
            from lawkit.bayes.posterior import posterior as sample

            draws, trace = sample(
                fit.runs,
                fit.estimate,
                posterior,  # type: ignore[arg-type]
                noise=noise,
                pool=pool,
                seed=seed,
                progress=progress,
            )
    except DrawsError as error:
        stopped = {"interrupted": True} if error.interrupted else {}
        note = f"the point fit is kept, without draws: {error}"
        return replace(fit, warnings=(*fit.warnings, note), diagnostics={**fit.diagnostics, **stopped})
    except KeyboardInterrupt:
        what = f"the bootstrap of {bootstrap} refits" if bootstrap else f"the posterior ({posterior})"
        note = f"{what} was interrupted: the point fit is kept, without draws"
        return replace(
            fit, warnings=(*fit.warnings, note), diagnostics={**fit.diagnostics, "interrupted": True}
        )
    warnings = [*fit.warnings, *draws.warnings]
    if trace is None and not bootstrap:
        from lawkit.bayes._arviz import INSTALL

        warnings.append(f"the posterior is not written as netCDF, as ArviZ is not installed: {INSTALL}")
    return replace(fit, draws=draws, netcdf=_netcdf(trace), warnings=tuple(dict.fromkeys(warnings)))


def _netcdf(trace: Any) -> bytes | None:
    if trace is None:
        return None
    from lawkit.bayes._arviz import save

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.nc"
        save(trace, path)
        return path.read_bytes()


def summary(fit: Fit, level: float = 0.9) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and central interval of each natural parameter over the draws, by domain.

    Floats for scalar parameters, lists over the sources for vectors.
    """
    from lawkit.bayes.natural import natural

    assert fit.draws is not None
    e, tails = fit.estimate, [0.5 - level / 2, 0.5 + level / 2]
    groups = []
    for g in range(fit.draws.z.shape[1]):
        values = natural(e.law, fit.draws.z[:, g], e.n_ref, e.d_ref, len(fit.sources))
        told = {}
        for name, v in values.items():
            low, high = np.quantile(v, tails, axis=0)
            numbers = {"mean": v.mean(0), "sd": v.std(0), "lower": low, "upper": high}
            told[name] = {k: np.asarray(number).tolist() for k, number in numbers.items()}
        groups.append(told)
    return {d: groups[0 if e.law.coupled else i] for i, d in enumerate(fit.domains)}
