"""What a study's page says, read from its store, its last fit and its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lawkit.errors import LawkitError, ReportError, StudyError
from lawkit.io._urls import without_credentials


def study_facts(folder: Path) -> dict[str, Any]:
    """All that the page of a study needs, as plain values.

    Raises
    ------
    StudyError
        When the folder is no study, or its store cannot be read.
    ReportError
        When nothing has been run yet.
    """
    from lawkit.study import Store, read_study
    from lawkit.study.circle import FITS
    from lawkit.study.generation import so_far
    from lawkit.study.lock import holder
    from lawkit.study.runner import told_state
    from lawkit.study.spending import spent
    from lawkit.study.store import FILE

    spec, run_by = read_study(folder), holder(folder)
    if not (folder / FILE).is_file():
        raise ReportError(f"{folder} has nothing to report: lawkit study run {folder} first")
    with Store(folder) as store:
        rows, rounds, generated = store.rows(), store.rounds(), so_far(spec, store)
        flops = spent(store, generated)
        finished = dict(zip(store.in_state("done"), store.results()[1], strict=True))
        weights = {row["run_id"]: store.spec(row["run_id"])["weights"] for row in rows}
    runs = []
    for row in rows:
        losses = None
        if row["run_id"] in finished:
            losses = {
                name: domain["loss"] for name, domain in finished[row["run_id"]].evals[-1]["domains"].items()
            }
        names = (
            "round",
            "origin",
            "state",
            "n_params",
            "n_tokens",
            "seed",
            "flops",
            "wall_s",
            "cpu_s",
            "reason",
        )
        told = {name: row[name] for name in names} | {"state": told_state(row["state"], run_by)}
        runs.append(
            {
                "id": row["run_id"],
                **told,
                "message": row["message"],
                "weights": weights[row["run_id"]],
                "losses": losses,
            }
        )
    decided = [round_ for round_ in rounds if round_["decision"] is not None]
    goal = spec.goal
    # A page is handed on: without the passwords of servers.
    text = re.sub(
        r"[^\s\"']+://[^\s\"']+",
        lambda url: without_credentials(url[0]),
        spec.path.read_text(encoding="utf-8"),
    )
    return {
        "name": folder.resolve().name,
        "spec": text,
        "target": None if goal is None else {"n_params": goal.n_params, "n_tokens": goal.n_tokens},
        "tolerance": None if goal is None else goal.tolerance,
        "interval": None if goal is None else goal.interval,
        "budget": None if goal is None else goal.budget,
        "spent": flops,
        "generated": generated,
        "sources": list(dict.fromkeys(name for run in runs for name in run["weights"])),
        "domains": list(dict.fromkeys(name for run in runs for name in run["losses"] or {})),
        "rounds": [_round(round_, runs) for round_ in rounds],
        "runs": runs,
        "decision": decided[-1] if decided else None,
        "fitted": _fitted(folder / FITS / f"round-{decided[-1]['round']:02d}") if decided else {},
        "next": _next(folder) if decided else None,
    }


def _round(round_: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    decision = round_["decision"] or {}
    return {
        "round": round_["round"],
        "method": round_["proposal"]["method"],
        "n_runs": sum(run["round"] == round_["round"] for run in runs),
        "efficiency": round_["proposal"].get("efficiency"),
        "flops": round_["flops"],
        "law": (round_["fit"] or {}).get("law"),
        "regret": decision.get("expected_regret"),
        "weights": decision.get("weights"),
        "interval": decision.get("weights_interval"),
        "objective": decision.get("objective"),
        "certificate": decision.get("certificate"),
    }


def _fitted(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """By domain, observed and fitted losses of the runs; nothing where the fit's folder is gone."""
    import lawkit

    try:
        fit = lawkit.load_fit(folder)
    except LawkitError:
        return {}
    runs = fit.runs
    predicted = fit.losses(runs.n_params, runs.n_tokens, runs.weights, runs.unique)
    names = runs.rows if runs.run_id is None else runs.run_id
    mixtures = [dict(zip(runs.sources, row, strict=True)) for row in runs.weights.tolist()]
    return {
        domain: [
            {
                "name": str(names[i]),
                "observed": float(o),
                "predicted": float(predicted[i, j]),
                "weights": mixtures[i],
            }
            for i, o in enumerate(fit.observed[:, j])
            if o == o
        ]
        for j, domain in enumerate(fit.domains)
    }


def _next(folder: Path) -> dict[str, Any]:
    """The runs that the study would do next, or why there are none to name."""
    from lawkit.study.pricing import price

    try:
        told = price(folder, renewed=True)
    except (LawkitError, StudyError) as error:
        return {"runs": [], "why": str(error), "flops": 0.0}
    return {"runs": told["runs"], "why": told["stop"], "flops": told["flops"]}
