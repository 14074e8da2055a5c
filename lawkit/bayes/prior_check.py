"""What the priors of a law expect of a table before any of its losses is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.bayes.spec import specs
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.estimate import parts
from lawkit.fitting.prepare import prepare
from lawkit.laws._average import members

if TYPE_CHECKING:
    from lawkit.fitting.result import Fit


def prior_check(fit: Fit, draws: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Losses that the priors expect at the fitted runs, beside those observed.

    Parameters
    ----------
    fit
        The fit whose law and runs are meant.
    draws
        Tables to simulate.
    seed
        Of the simulation.

    Returns
    -------
    dict
        By domain: `observed`, the lowest and highest loss; `expected`, the 5% and 95% quantiles of all simulated
        losses; `inside_90`, the share of the observed losses inside the central 90% interval of their own run.
    """
    from lawkit.bayes.sample import prior_predictive

    e, runs = fit.estimate, fit.runs
    simulated: dict[str, list[np.ndarray]] = {}
    observed: dict[str, np.ndarray] = {}
    for number, (member, z) in enumerate(
        zip(members(e.law), parts(e.law, e.z, len(runs.sources)), strict=True)
    ):
        assert z is not None
        ready = prepare(runs, member, e.objective, e.min_weight)
        for g, spec in enumerate(specs(runs, ready, z, e.noise, NoiseModel())):
            tables = prior_predictive(spec, draws, seed + 1000 * number + g)
            for i, domain in enumerate(spec.domains):
                live = spec.live[:, i]
                observed[domain] = spec.log_losses[live, i]
                simulated.setdefault(domain, []).append(tables[:, live, i])
    out = {}
    for domain, tables in simulated.items():
        table = np.concatenate(tables)
        low, high = np.nanquantile(table, [0.05, 0.95], axis=0)
        seen = observed[domain]
        out[domain] = {
            "observed": [float(np.exp(seen.min())), float(np.exp(seen.max()))],
            "expected": [float(v) for v in np.exp(np.nanquantile(table, [0.05, 0.95]))],
            "inside_90": float(((seen >= low) & (seen <= high)).mean()),
        }
    return out
