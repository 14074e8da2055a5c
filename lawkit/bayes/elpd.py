"""What a posterior says of losses that are left out one by one, so that laws can be held beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lawkit.bayes._arviz import Loo, loo
from lawkit.bayes.density import log_likelihood
from lawkit.bayes.posterior import posterior
from lawkit.bayes.spec import GroupDraws, specs
from lawkit.fitting.draws import Draws
from lawkit.fitting.estimate import Estimate
from lawkit.fitting.prepare import Prepared
from lawkit.runs import Runs

#: Draws beyond these do not move an estimate.
_MOST = 1000
#: Share of the losses with a Pareto k above .7 that is worth a warning.
_UNRELIABLE = 0.01


def pointwise(runs: Runs, e: Estimate, ready: Prepared, draws: Draws, domains: Sequence[str]) -> np.ndarray:
    """Log densities (S, N) of the log losses of all fitted cells under each draw.

    Parameters
    ----------
    runs, e, ready
        The runs, the point fit, and what `prepare` made of them.
    draws
        Of its posterior.
    domains
        Cells come domain by domain in this order, and by rows within: the same for all laws fitted to the same cells.
    """
    which = np.linspace(0, len(draws) - 1, min(len(draws), _MOST)).astype(int)
    columns: dict[str, np.ndarray] = {}
    for g, spec in enumerate(specs(runs, ready, e.z, e.noise, draws.noise_model)):
        mine = [e.domains.index(d) for d in spec.domains]
        noise, nu, eta = (v[which][:, mine] for v in (draws.noise, draws.nu, draws.eta))
        each = log_likelihood(spec, GroupDraws(z=draws.z[which, g], noise=noise, nu=nu, eta=eta))
        columns |= {d: each[:, spec.live[:, i], i] for i, d in enumerate(spec.domains)}
    out = np.concatenate([columns[d] for d in domains], 1)
    return out[np.isfinite(out).all(1)]  # no loss of a draw where the law is not positive


def leave_one_out(
    runs: Runs, e: Estimate, ready: Prepared, domains: Sequence[str], seed: int = 0
) -> tuple[Loo, list[str]]:
    """PSIS-LOO of the cells of `pointwise` under Laplace's approximation, and what limits its use.

    Raises
    ------
    FitError
        If ArviZ is not installed, or the runs are too few for a posterior.
    """
    draws, _ = posterior(runs, e, "laplace", seed=seed)
    density = pointwise(runs, e, ready, draws, domains)
    # The draws are independent; ArviZ looks for differences between chains, so they are told as four.
    found = loo(density[: len(density) // 4 * 4], 4)
    warnings = (
        ["elpd is approximate: Laplace's approximation of the posterior is rough"] if draws.warnings else []
    )
    if found.unreliable_share > _UNRELIABLE:
        warnings.append(
            f"elpd cannot be trusted: for {found.unreliable_share:.0%} of the losses, leaving one out changes the "
            "posterior too much to be read off it (Pareto k above 0.7)"
        )
    return found, warnings
