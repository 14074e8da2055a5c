"""Train one proposed run on this machine, through torchtitan, and hold its losses against the forecast."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lawkit
from lawkit.corpus import Corpus, build
from lawkit.fitting.scoring import predict_runs
from lawkit.studies.text_cpu import forecast, sources, standard, train


def possible() -> bool:
    """Whether torchtitan is installed here."""
    return importlib.util.find_spec("torchtitan") is not None


def outcome(
    fit: lawkit.Fit, run: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train a proposed run, on the study's texts where they can be had.

    Parameters
    ----------
    fit
        The law, fitted to the study's runs.
    run
        `n_params`, `n_tokens`, `weights` and `seed` of the run.
    folder
        Where corpus and run are kept; what was built or trained there before is not done again.
    say
        Told what is being done, one line at a time.

    Returns
    -------
    dict
        `losses` by domain; `texts`, "the study's", "later versions of the study's" or "the Python installation's"; with
        the first two `forecast`, which has mean, lower and upper by domain; with the last `reason`, why no others.
    """
    try:
        corpus, reason = build(sources.fetch(say), folder / "corpora", vocab_size=train.VOCABULARY), None
        same = corpus.digest == forecast.provenance()["corpus"]
        kind = "the study's" if same else "later versions of the study's"
    except sources.UnavailableError as error:
        say("reading the standard library instead")
        corpus = build(standard.texts(folder / "standard"), folder / "corpora", vocab_size=train.VOCABULARY)
        kind, reason = "the Python installation's", str(error)
    weights = run["weights"] if reason is None else dict.fromkeys(corpus.sources, 1 / len(corpus.sources))
    say(f"training {run['n_params']:,.0f} parameters on {run['n_tokens']:,.0f} tokens")
    done = _run(corpus, folder, {**run, "weights": weights})
    losses = dict(zip(done.domains, done.losses[0].tolist(), strict=True))
    found: dict[str, Any] = {"texts": kind, "run": {**run, "weights": weights}, "losses": losses}
    if reason is not None:
        return found | {"reason": reason}
    said, _ = predict_runs(fit, done, forecast.LEVEL)
    lower, upper = forecast.given(said.lower), forecast.given(said.upper)
    bands = {
        d: {
            "mean": float(said.mean[0, i]),
            "lower": float(lower[0, i]),
            "upper": float(upper[0, i]),
        }
        for i, d in enumerate(fit.domains)
    }
    return found | {"forecast": bands}


def _run(corpus: Corpus, folder: Path, run: Mapping[str, Any]) -> lawkit.Runs:
    from lawkit.backends import RunSpec
    from lawkit.backends.torchtitan import Torchtitan

    spec = RunSpec(
        n_params=run["n_params"], n_tokens=run["n_tokens"], weights=run["weights"], seed=run["seed"]
    )
    recipe = tomllib.loads((train.HERE / "study.toml").read_text(encoding="utf-8"))["recipe"]
    return Torchtitan(corpus.path, folder / "runs", recipe=recipe).run([spec])
