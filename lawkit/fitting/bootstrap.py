"""Bootstrap: the fit once more for each of many resamples of the training runs, thousands of them in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.draws import Draws
from lawkit.fitting.estimate import Estimate
from lawkit.fitting.posterior import mean_one
from lawkit.fitting.prepare import Prepared, some
from lawkit.fitting.resample import Resampler
from lawkit.fitting.solver import LeastSquares, Target, cores, minimise
from lawkit.laws._average import Average
from lawkit.runs import Runs

#: Replicates that a bootstrap needs at least: under it neither a standard error nor a band is worth having.
FEWEST = 50
#: Cells of one batch (replicates x domains x runs): larger arrays leave the processor's cache.
_CELLS = 12_000
#: Training runs below which standard errors come out too small, and below which there is nothing to resample.
_FEW_RUNS, _NO_RUNS = 10, 4


def bootstrap(
    runs: Runs,
    ready: Prepared,
    e: Estimate,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Draws:
    """Refits a law to resamples of the runs it was fitted to.

    Whole training runs are drawn with replacement, as many as there are (`training_runs`: checkpoints of one run stay
    together), and the same ones for all domains and all members of an average. Every replicate starts from the fit
    and minimises the objective that the fit did, each run counting as often as it was drawn.

    Parameters
    ----------
    runs, ready, e
        The runs, what `prepare` made of them and the law, and the fit (both as `estimate` returns them).
    count
        Replicates S.
    seed
        Replicate s depends on it and on s only: not on `count`, on the cores, or on how replicates are batched.
    progress
        Called with the replicates done and `count`, from time to time.

    Returns
    -------
    Draws
        Of kind 'bootstrap', in the order of the replicates. `diagnostics` has `replicates` (kept), `asked`,
        `redrawn` (drawn anew, as a domain was left fewer losses than it has parameters), `failed` (left out, as that
        went on or as no finite cost was found, in whatever domain), `training_runs` and `seconds`. Noise is constant
        and normal.

    Raises
    ------
    FitError
        If `count` is under 50, if there are fewer than 4 training runs, or if most replicates fail.
    KeyboardInterrupt
        If it comes before 50 replicates are finished; later, these are returned and a warning says how many.

    Notes
    -----
    The noise of a replicate is that of the fit, times the root of how much the mean square of the fit's residuals
    changes with the resample. Residuals of the replicate's own parameters would be too small, more so the more
    parameters there are: it is fitted to fewer different runs, some of them several times. To first order the
    parameters do not move the mean square, so the sampling error of the noise, shared errors included, is all there.

    Priors are not resampled: a parameter that the runs leave open stays near its prior's mean, and its draws
    are narrower than its posterior. A warning names those whose variance is mostly the prior's.

    References
    ----------
    Efron and Tibshirani 1993, An Introduction to the Bootstrap; Field and Welsh 2007, Journal of the Royal Statistical
    Society B 69, on resampling whole clusters.
    """
    if count < FEWEST:
        raise FitError(f"a bootstrap needs at least {FEWEST} replicates, got {count}: ask for more")
    began = perf_counter()
    resampler = Resampler.of(runs, ready, seed)
    if resampler.drawn_from < _NO_RUNS:
        raise FitError(
            f"a bootstrap resamples training runs and needs at least {_NO_RUNS} of them, got {resampler.drawn_from} "
            f"(rows of one run_id, or checkpoints of one mixture, size and seed, are one): add runs"
        )
    batch = _Batch(ready, e, resampler)
    size = max(1, _CELLS // ready.problem.target.losses.size)
    batches = [np.arange(s, min(s + size, count)) for s in range(0, count, size)]
    parts, interrupted = _finish(batch.fit, batches, count, progress)
    z, noise, redrawn = (np.concatenate(p) for p in zip(*parts, strict=True))
    sound = np.isfinite(z).all((1, 2))
    kept, failed = int(sound.sum()), int((~sound).sum())
    if kept < failed:
        raise FitError(
            f"{failed} of {len(z)} bootstrap replicates failed: resamples of {resampler.drawn_from} training runs "
            f"rarely hold the losses that law {ready.law.name!r} needs; add runs, or choose a law with fewer parameters"
        )
    return Draws(
        kind="bootstrap",
        z=z[sound],
        noise=noise[sound],
        nu=np.full((kept, len(e.domains)), np.inf),
        eta=np.zeros((kept, len(e.domains), 0)),
        diagnostics={
            "replicates": kept,
            "asked": count,
            "redrawn": int(redrawn.sum()),
            "failed": failed,
            "training_runs": resampler.drawn_from,
            "seconds": perf_counter() - began,
        },
        warnings=(
            *_warnings(kept, failed, int((redrawn > 0).sum()), count, interrupted, resampler.drawn_from),
            *_left_to_priors(ready, e),
        ),
    )


def _warnings(
    kept: int, failed: int, redrawn: int, count: int, interrupted: bool, drawn_from: int
) -> tuple[str, ...]:
    out, finished = [], kept + failed
    if interrupted:
        out.append(f"the bootstrap was interrupted: {finished} of {count} replicates are finished, and used")
    if failed:
        out.append(
            f"{failed} of {finished} bootstrap replicates failed and are left out: intervals from the other {kept} are "
            "too narrow if those were extreme"
        )
    if redrawn > 0.1 * finished:
        out.append(
            f"{redrawn} of {finished} resamples left a domain fewer losses than it has parameters and were drawn anew: "
            "the table is small for its law, and intervals come out too narrow"
        )
    if drawn_from < _FEW_RUNS:
        out.append(
            f"the bootstrap resamples {drawn_from} training runs: with so few, its standard errors come out too small"
        )
    return tuple(out)


def _left_to_priors(ready: Prepared, e: Estimate) -> tuple[str, ...]:
    """A warning that names the parameters whose posterior variance is over half the prior's."""
    root = ready.problem.target.prior_root
    if root is None:
        return ()
    prior = (np.linalg.inv(root) ** 2).sum(1)
    left = (np.einsum("gpp->gp", e.covariance) > 0.5 * prior).any(0)
    names = [n for n, part in ready.law.layout(ready.context.n_sources).items() if left[part].any()]
    if not names:
        return ()
    return (
        f"the runs say little of {some(names)}, whose priors a bootstrap does not resample: bands where these matter "
        "are too narrow, a posterior's are not",
    )


# ---- some replicates ---------------------------------------------------------------------------------------


class _Batch:
    """Replicates of one fit, fitted several at once."""

    def __init__(self, ready: Prepared, e: Estimate, resampler: Resampler):
        self._problem, self._resampler = ready.problem, resampler
        self._e, self._members = e, _members(ready, e)
        target = ready.problem.target
        value = ready.problem.function.value(e.z, ready.problem.inputs.take(np.arange(len(e.z))))
        live = target.cell_weights > 0
        with np.errstate(all="ignore"):  # as `posterior` takes residuals
            near = value > 0.1 * target.losses
            log_residual = np.where(near, np.log(value / target.losses), value / target.losses - 1.0)
            self._squares = np.where(live, mean_one(target) * log_residual**2, 0.0)  # (G, n, m)

    def fit(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parameters (R, G, P), noise (R, E) and how often each was drawn anew (R,), of the replicates `at` (R,).

        Parameters of those that fail are NaN.
        """
        drawn = [self._resampler.draw(int(s)) for s in at]
        redrawn = np.array([times for _, times in drawn])
        good = np.flatnonzero([counts is not None for counts, _ in drawn])
        z = np.full((len(at), *self._e.z.shape), np.nan)
        noise = np.full((len(at), len(self._e.domains)), np.nan)
        if len(good):
            counts = np.stack([counts for counts, _ in drawn if counts is not None]).astype(float)
            z[good] = np.concatenate([self._refit(p, start, counts) for p, start in self._members], 2)
            noise[good] = self._noise(counts)
        return z, noise, redrawn

    @staticmethod
    def _refit(problem: LeastSquares, start: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(R, G, P) minima from `start` (G, P), rows weighted by `counts` (R, n); NaN where there is no finite cost."""
        groups = np.tile(np.arange(len(start)), len(counts))
        target = problem.target
        mean = target.prior_mean
        resampled = LeastSquares(
            problem.function,
            problem.inputs.take(groups),
            Target(
                target.losses[groups],
                target.cell_weights[groups] * np.repeat(counts, len(start), 0)[:, :, None],
                None if mean is None else mean[groups],
                target.prior_root,
            ),
            problem.objective,
        )
        # It is batches that are shared out among threads.
        z, cost = minimise(resampled, start[groups], np.arange(len(groups)), workers=1)
        z[~np.isfinite(cost)] = np.nan
        return z.reshape(len(counts), *start.shape)

    def _noise(self, counts: np.ndarray) -> np.ndarray:
        """(R, E) noise, see the notes of `bootstrap`."""
        live = self._problem.target.cell_weights > 0
        mean = np.einsum("rn,gnm->rgm", counts, self._squares) / np.einsum("rn,gnm->rgm", counts, live)
        full = self._squares.sum(1) / live.sum(1)
        ratio = np.sqrt(mean / np.where(full > 0, full, 1.0))
        return self._e.noise * np.where(full > 0, ratio, 1.0).reshape(len(counts), -1)


def _members(ready: Prepared, e: Estimate) -> list[tuple[LeastSquares, np.ndarray]]:
    """What is minimised, and from where (G, P): one law, or one member of an average after the other."""
    if not isinstance(ready.law, Average):
        return [(ready.problem, e.z)]
    problem, out, at = ready.problem, [], 0
    for law in ready.law.members:
        part = slice(at, at + law.n_parameters(ready.context.n_sources))
        target = problem.target
        priors = target.prior_mean is not None and any(p.prior for p in law.parameters)
        own = Target(
            target.losses,
            target.cell_weights,
            target.prior_mean[:, part] if priors else None,  # type: ignore[index]
            target.prior_root[part, part] if priors else None,  # type: ignore[index]
        )
        out.append((LeastSquares(law.function, problem.inputs, own, problem.objective), e.z[:, part]))
        at = part.stop
    return out


# ---- many replicates ----------------------------------------------------------------------------------------

_Part = tuple[np.ndarray, np.ndarray, np.ndarray]


def _finish(
    fit: Callable[[np.ndarray], _Part],
    batches: Sequence[np.ndarray],
    count: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[_Part], bool]:
    """Fits all batches, on all cores; the finished ones if they are enough when Ctrl-C comes, and whether it did."""
    report = progress or (lambda done, total: None)
    # The first batch compiles what all need, so the others wait for it.
    first, done = fit(batches[0]), len(batches[0])
    futures: list[Future[_Part]] = []
    try:
        with ThreadPoolExecutor(cores()) as pool:
            try:
                for these in batches[1:]:
                    futures.append(pool.submit(fit, these))
                report(done, count)
                for these, future in zip(batches[1:], futures, strict=True):
                    future.result()
                    done += len(these)
                    report(done, count)
            except BaseException:
                # Those that run are waited for at the end of the block.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except KeyboardInterrupt:
        ended = [f for f in futures if f.done() and not f.cancelled() and f.exception() is None]
        parts = [first, *[f.result() for f in ended]]
        if sum(len(part[0]) for part in parts) < FEWEST:
            raise
        return parts, True
    return [first, *[f.result() for f in futures]], False
