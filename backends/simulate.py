"""Simulate: answer with a known law plus noise, where the truth must be known to judge an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.backends._backend import RunSpec
from lawkit.errors import LawkitError
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.laws import Law


class Simulate:
    """Losses of a law with given parameters, times log-normal noise.

    The noise of a run depends on the run and the seeds alone, not on what else is asked for or in
    which order: the same run gives the same losses to the bit.

    Parameters
    ----------
    law
        The law that is true in this world.
    parameters
        By domain, the law's parameters in natural units: floats, and arrays (K,) for the ones that
        have an element a source. For a coupled law, whose domains are its sources, the one set.
    sources
        Names of the K sources.
    noise
        Standard deviation of the log loss between seeds, such as .005.
    seed
        Of the noise, beside each run's own seed.
    n_ref, d_ref
        The geometric means that the parameters are relative to, for laws that use them.

    Raises
    ------
    LawkitError
        For a law that needs more than a run specification says, or a negative noise.

    Examples
    --------
    >>> from lawkit import laws
    >>> truth = {"wiki": {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}}
    >>> world = Simulate(laws.get("chinchilla"), truth, sources=("web",))
    >>> runs = world.run([RunSpec(n_params=1e8, n_tokens=2e9, weights={"web": 1.0})])
    >>> runs.domains, runs.losses.round(4).tolist()
    (('wiki',), [[3.4819]])
    """

    def __init__(
        self,
        law: Law,
        parameters: Mapping[str, Any],
        *,
        sources: Sequence[str],
        noise: float = 0.0,
        seed: int = 0,
        n_ref: float = 1.0,
        d_ref: float = 1.0,
    ) -> None:
        if "unique" in law.columns:
            raise LawkitError(
                f"law {law.name!r} needs the unique tokens of each run, which a run specification "
                "does not hold; simulate with another law"
            )
        if not noise >= 0:
            raise LawkitError(f"noise is a standard deviation of 0 or more, not {noise}")
        self.law = law
        self.sources = tuple(sources)
        self.domains = self.sources if law.coupled else tuple(parameters)
        self.noise = noise
        self.seed = seed
        self._refs = n_ref, d_ref
        groups = [parameters] if law.coupled else list(parameters.values())
        self._z = np.stack([law.unconstrained(dict(values), n_ref, d_ref) for values in groups])

    def run(self, specs: Sequence[RunSpec]) -> Runs:
        """Return the simulated runs, one a specification.

        Raises
        ------
        LawkitError
            For a source this world does not have.
        """
        weights = np.array([self._weights(spec) for spec in specs]).reshape(len(specs), len(self.sources))
        n_params = np.array([spec.n_params for spec in specs], float)
        n_tokens = np.array([spec.n_tokens for spec in specs], float)
        losses = self.losses(n_params, n_tokens, weights)
        shocks = np.array([self._shock(spec, row) for spec, row in zip(specs, weights, strict=True)])
        return Runs(
            sources=self.sources,
            domains=self.domains,
            n_params=n_params,
            n_tokens=n_tokens,
            weights=weights,
            losses=losses * np.exp(self.noise * shocks.reshape(losses.shape)),
            seed=np.array([spec.seed for spec in specs], dtype=np.int64),
            flops=6 * n_params * n_tokens,
        )

    def losses(self, n_params: np.ndarray, n_tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Losses without noise, (n, E), for sizes (n,) and weights (n, K)."""
        from lawkit.laws._function import Inputs

        own = np.array([self.sources.index(d) if d in self.sources else -1 for d in self.domains])
        inputs = Inputs(
            n_params=n_params,
            n_tokens=n_tokens,
            weights=weights,
            own=own[None, :] if self.law.coupled else own[:, None],
            n_ref=self._refs[0],
            d_ref=self._refs[1],
        )
        value = self.law.function.value(self._z, inputs)
        return value[0] if self.law.coupled else value[:, :, 0].T

    def _weights(self, spec: RunSpec) -> list[float]:
        unknown = [name for name, weight in spec.weights.items() if weight and name not in self.sources]
        if unknown:
            raise LawkitError(
                f"source {unknown[0]!r} is not simulated here; there are {', '.join(self.sources)}"
            )
        return [spec.weights.get(name, 0.0) for name in self.sources]

    def _shock(self, spec: RunSpec, weights: np.ndarray) -> np.ndarray:
        """Standard normal draws (E,) that belong to this run and these seeds."""
        run = np.array([spec.n_params, spec.n_tokens, *weights], dtype="<f8").tobytes()
        key = hashlib.blake2b(run + f"{self.seed}/{spec.seed}".encode(), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(key, "little")).standard_normal(len(self.domains))
