"""The runs before any fit: mixtures that fill the space, cheap sizes first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lawkit import laws
from lawkit.design.candidates import space_filling, spread, training_flops
from lawkit.errors import OptimizeError
from lawkit.laws._law import Law
from lawkit.mixture import MixtureProblem
from lawkit.mixture.target import check_size
from lawkit.runs import Runs

#: Parameters of a domain's law to each run of a start, where the law's priors carry the rest.
PER_RUN = 6
#: Least number of runs of a start, and of runs at one size: a single one cannot tell its mixture from its size.
LEAST, TOGETHER = 3, 2


def start_number(law: Law, n_sources: int) -> int:
    """How many runs a study of a law starts with.

    A law with priors can be fitted to fewer runs than it has parameters, and the first proposals are better
    spent than the rest of a blind start; one without needs a run a parameter.
    """
    count = law.n_parameters(n_sources)
    if any(p.prior for p in law.parameters):
        count = -(-count // PER_RUN)
    return max(LEAST, count)


def start_runs(
    sources: tuple[str, ...],
    *,
    law: str = "transfer",
    n_params: tuple[float, float],
    n_tokens: tuple[float, float],
    levels: int = 3,
    n: int | None = None,
    budget: float | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    seed: int = 0,
) -> Runs:
    """Runs to train before there is anything to fit.

    Mixtures are scrambled Sobol points turned into Dirichlet quantiles; sizes are spaced evenly in their
    logarithms from the smallest to the largest, half of the runs at the cheapest, half of the rest at the next
    and so on, and never a single one at a size.

    Parameters
    ----------
    sources
        Names of the sources.
    law
        The law that is going to be fitted, which decides how many runs there are.
    n_params, n_tokens
        Smallest and largest.
    levels
        How many sizes at most.
    n
        How many runs instead.
    budget
        Flops that they may cost together: sizes that do not fit are left out.
    bounds
        As for `lawkit.optimize_mixture`.
    seed
        Of the points.

    Returns
    -------
    Runs
        Without losses, the cheapest first.

    Raises
    ------
    OptimizeError
        For sizes that make no sense, fewer than two sources, or a budget that does not pay for the runs at
        the cheapest size.

    Examples
    --------
    >>> first = start_runs(("web", "hq"), n_params=(1e7, 1e8), n_tokens=(2e8, 2e9), n=8)
    >>> first.n_params.round(-4).tolist()
    [10000000.0, 10000000.0, 10000000.0, 10000000.0, 31620000.0, 31620000.0, 100000000.0, 100000000.0]
    """
    for name, pair in (("n_params", n_params), ("n_tokens", n_tokens)):
        for value in pair:
            check_size(name, value)
        if pair[0] > pair[1]:
            raise OptimizeError(f"{name} goes from the smallest to the largest, got {pair}")
    if len(sources) < 2:
        raise OptimizeError(f"a start fills the space of mixtures: it needs two sources, got {len(sources)}")
    number = start_number(laws.get(law), len(sources)) if n is None else n
    if number < 1 or levels < 1:
        raise OptimizeError(f"n and levels must be at least 1, got {number} and {levels}")
    problem = MixtureProblem.build(sources, ("any",), bounds=bounds)
    sizes = np.geomspace([n_params[0], n_tokens[0]], [n_params[1], n_tokens[1]], levels)
    sizes = sizes[np.r_[True, (np.diff(sizes, axis=0) > 0).any(1)]]
    cost = training_flops(sizes[:, 0], sizes[:, 1])
    at = dealt(number, len(sizes))
    while budget is not None and cost[at].sum() > budget:
        if at[-1] == 0:
            raise OptimizeError(
                f"the budget of {budget:.4g} flops does not pay for {number} runs at the cheapest size, "
                f"{cost[0]:.4g} each: ask for fewer (n) or smaller ones"
            )
        at = dealt(number, int(at[-1]))
    return Runs(
        sources=sources,
        domains=(),
        n_params=sizes[at, 0],
        n_tokens=sizes[at, 1],
        weights=space_filling(problem, number, seed),
        losses=np.empty((number, 0)),
        flops=cost[at],
        seed=np.zeros(number, np.int64),
    )


def start_rows(table: Runs, number: int, seed: int) -> np.ndarray:
    """(number,) rows of a table of possible runs to start with: of its cheapest size, mixtures far apart.

    Where there are fewer at that size, all of them and then those of the next.
    """
    n_params, n_tokens = (np.ones(len(table)) if c is None else c for c in (table.n_params, table.n_tokens))
    cost = training_flops(n_params, n_tokens) if table.flops is None else table.flops
    rung = np.round(np.log(cost / cost.min()) / 0.05)
    picks: list[int] = []
    for level in np.unique(rung):
        rows = np.flatnonzero(rung == level)
        picks += rows[spread(table.weights[rows], number - len(picks), seed)].tolist()
        if len(picks) >= number:
            break
    return np.array(picks)


def dealt(number: int, levels: int) -> np.ndarray:
    """(number,) rung of each run: half at the first, half of the rest at the next and so on, at least two at each."""
    out: list[int] = []
    for level in range(levels):
        left = number - len(out)
        here = left if level == levels - 1 or left < 2 * TOGETHER else max(TOGETHER, -(-left // 2))
        out += [level] * here
        if len(out) == number:
            break
    return np.array(out)
