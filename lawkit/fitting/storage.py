"""Fit folders: fit.json for people and programs, and the arrays beside it; no pickle.

fit.json names the file of its arrays, whose name holds their checksum, and takes the place of an older fit.json in one
step, after the arrays are on disk. So a folder is the old fit or the new one at every instant, whatever kills
the process; arrays that no fit.json names are left-overs, swept by the next save. Saves into one folder take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lawkit import laws
from lawkit.errors import FitError, LawError, LawkitError
from lawkit.fitting.bands import Rolling
from lawkit.fitting.draws import Draws, NoiseModel
from lawkit.fitting.estimate import Estimate
from lawkit.fitting.locking import exclusive
from lawkit.fitting.prepare import recorded_sizes
from lawkit.fitting.result import Fit
from lawkit.io._write import UMASK, replace_file
from lawkit.laws._law import Law, Objective
from lawkit.runs import Runs

#: Raised when a fit folder of an older lawkit can no longer be read.
FORMAT = 2
_HEAD = "fit.json"
_LOCK = ".fit.lock"
_RUNS = (
    "n_params",
    "n_tokens",
    "weights",
    "losses",
    "losses_se",
    "unique",
    "flops",
    "seed",
    "is_final",
    "rows",
)
_DRAWS = ("z", "noise", "nu", "eta")
_ROLLING = ("reach", "factor", "origins", "errors", "judged", "narrow", "one_sided")
_ROLLING_ARRAYS = ("lines", "pooled", "mean_error")
_NOISE_MODEL = ("used", "mean", "sd")
_ESTIMATE = ("z", "covariance", "noise", "cost", "starts_at_optimum", "hessian", "own")


def save_fit(fit: Fit, folder: str | os.PathLike[str]) -> None:
    """Writes the fit folder; see `Fit.save`."""
    target = Path(folder)
    _check_law(fit.law)
    try:
        check_target(target)
        content = _arrays(fit)
        files = {f"arrays-{_checksum(content)}.npz": content}
        posterior = fit.netcdf.read_bytes() if isinstance(fit.netcdf, Path) else fit.netcdf
        if posterior is not None:
            files[f"posterior-{_checksum(posterior)}.nc"] = posterior
        # The head is written last: it names the others.
        files[_HEAD] = (json.dumps(_head(fit, *files), indent=1, allow_nan=False) + "\n").encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_dir() and _make(target, files):
            return
        with exclusive(target / _LOCK, str(target)) as alone:
            for name, part in files.items():
                replace_file(part, target / name)
            if alone:
                _sweep(target)
    except OSError as error:
        raise FitError(
            f"the fit cannot be written to {target}: {error.strerror or error}; name another folder with -o"
        ) from error


def load_fit(folder: str | os.PathLike[str]) -> Fit:
    """A fit from its folder; predictions are those of the fit that was saved, bit for bit.

    Parameters
    ----------
    folder
        As given to `Fit.save`.

    Raises
    ------
    FitError
        If the folder is missing, incomplete, damaged, or of another version.
    """
    path = Path(folder)
    try:
        if not (path / _HEAD).is_file():
            what = f"is not a fit folder: it has no {_HEAD}" if path.exists() else "does not exist"
            raise FitError(f"{path} {what}; make one with `lawkit fit RUNS -o {path}`")
        for last in (False, True):  # a save between reading the two files replaces both: once more then
            head = json.loads((path / _HEAD).read_text(encoding="utf-8"))
            found = head.get("format") if isinstance(head, dict) else None
            if found != FORMAT:
                raise FitError(
                    f"{path} has format {found!r}, and this lawkit reads format {FORMAT}: "
                    "fit the runs again with this version"
                )
            try:
                content = (path / Path(head["arrays"]).name).read_bytes()
            except FileNotFoundError:
                if last:
                    raise FitError(
                        f"{path} is incomplete: {head['arrays']} is missing; fit the runs again"
                    ) from None
                continue
            break
        if _checksum(content) not in head["arrays"]:
            raise FitError(f"{path} is damaged: {head['arrays']} is not what was saved; fit the runs again")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return _restore(head, {k: stored[k] for k in stored.files}, path)
    except LawkitError:
        raise
    except OSError as error:
        raise FitError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged file makes json, numpy or Runs say
        raise FitError(f"{path} is damaged ({type(error).__name__}: {error}); fit the runs again") from error


# ---- what is stored -------------------------------------------------------------------------------------


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _head(fit: Fit, arrays: str, posterior: str | None = None) -> dict[str, Any]:
    from lawkit import __version__

    e, runs = fit.estimate, fit.runs
    return {
        "format": FORMAT,
        "lawkit": __version__,
        **fit.to_dict(),
        "arrays": arrays,
        "posterior_file": posterior,
        "expression": fit.law.text(),
        "n_ref": e.n_ref,
        "d_ref": e.d_ref,
        "objective": {f.name: getattr(e.objective, f.name) for f in fields(Objective)},
        "min_weight": e.min_weight,
        "rolling": _rolling_head(fit),
        "runs": {
            "domains": list(runs.domains),
            "run_id": None if runs.run_id is None else [str(v) for v in runs.run_id],
            "path": None if runs.path is None else Path(runs.path).name,
        },
    }


def _arrays(fit: Fit) -> bytes:
    arrays = {f"runs_{k}": v for k in _RUNS if (v := getattr(fit.runs, k)) is not None}
    arrays |= {name: getattr(fit.estimate, name) for name in _ESTIMATE}
    if (rolling := fit.__dict__.get("rolling")) is not None:
        arrays |= {f"rolling_{name}": getattr(rolling, name) for name in _ROLLING_ARRAYS}
    if fit.draws is not None:
        arrays |= {f"draws_{name}": getattr(fit.draws, name) for name in _DRAWS}
        arrays |= {f"noise_model_{name}": getattr(fit.draws.noise_model, name) for name in _NOISE_MODEL}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _restore(head: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> Fit:
    law = _law(head)
    if law.text() != head["expression"]:
        raise FitError(
            f"{path} was fitted by lawkit {head['lawkit']} when law {law.name!r} read {head['expression']}; "
            f"it now reads {law.text()}: fit the runs again"
        )
    ids = head["runs"]["run_id"]
    optional: dict[str, Any] = {
        k: arrays.get(f"runs_{k}") for k in _RUNS if k not in ("weights", "losses", "rows")
    }
    runs = Runs(
        sources=tuple(head["sources"]),
        domains=tuple(head["runs"]["domains"]),
        run_id=None if ids is None else np.array(ids, object),
        path=head["runs"]["path"],
        weights=arrays["runs_weights"],
        losses=arrays["runs_losses"],
        rows=arrays["runs_rows"],
        **optional,
    )
    estimate = Estimate(
        law=law,
        objective=Objective(**head["objective"]),
        domains=tuple(head["domains"]),
        recorded=recorded_sizes(runs),
        n_ref=head["n_ref"],
        d_ref=head["d_ref"],
        min_weight=head["min_weight"],
        **{name: arrays[name] for name in _ESTIMATE},
    )
    size = law.n_parameters(len(runs.sources))
    if estimate.z.shape != (1 if law.coupled else len(estimate.domains), size):
        raise FitError(
            f"{path} is damaged: parameters of shape {estimate.z.shape} for law {law.name!r}; fit the runs again"
        )
    fit = Fit(
        runs=runs,
        estimate=estimate,
        train=head["train"],
        domain_train={d: v["train"] for d, v in head["domains"].items()},
        holdout=head["holdout"],
        domain_holdout={d: v["holdout"] for d, v in head["domains"].items() if v["holdout"] is not None},
        draws=_draws(head, arrays),
        netcdf=None if head["posterior_file"] is None else path / Path(head["posterior_file"]).name,
        diagnostics=head["diagnostics"],
        warnings=tuple(head["warnings"]),
    )
    _compare(fit, head, path)
    if head["rolling"] is not None:  # what was made is kept; what was not is made when asked for
        made = head["rolling"]
        parts = {name: arrays.get(f"rolling_{name}") for name in _ROLLING_ARRAYS}
        found = None if made == {} else Rolling(**parts, **made)  # type: ignore[arg-type]
        fit.__dict__["rolling"] = found
    return fit


def _rolling_head(fit: Fit) -> dict[str, Any] | None:
    """None where nobody has asked for the earlier forecasts, empty where none can be made."""
    if "rolling" not in fit.__dict__:
        return None
    return {} if fit.rolling is None else {k: getattr(fit.rolling, k) for k in _ROLLING}


def _draws(head: dict[str, Any], arrays: dict[str, np.ndarray]) -> Draws | None:
    made = head["draws"]
    if made is None:
        return None
    noise = NoiseModel(kind=made["noise"], **{name: arrays[f"noise_model_{name}"] for name in _NOISE_MODEL})
    return Draws(
        kind=made["kind"], noise_model=noise, diagnostics=made["diagnostics"], warnings=tuple(made["warnings"]),
        **{name: arrays[f"draws_{name}"] for name in _DRAWS},
    )  # fmt: skip


def _compare(fit: Fit, head: dict[str, Any], path: Path) -> None:
    """Refuses a fit.json whose parameters are not those of the arrays: people read the one, predictions the other."""
    for domain, parameters in fit.parameters.items():
        said = head["domains"][domain]["parameters"]
        if set(said) != set(parameters):
            raise FitError(
                f"{path} is damaged: fit.json names other parameters of {domain} than law {fit.law.name!r} has; "
                "fit the runs again"
            )
        for name, value in parameters.items():
            if not np.allclose(said[name], value, rtol=1e-9, atol=0.0):
                raise FitError(
                    f"{path} contradicts itself: {name} of {domain} is {_short(said[name])} in fit.json and "
                    f"{_short(value)} by its arrays, from which predictions are made; fit.json was edited, or lawkit "
                    f"{head['lawkit']} stored something else: fit the runs again"
                )


def _short(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=6, threshold=6)


def _law(head: dict[str, Any]) -> Law:
    if head["formula"] is None:
        law = laws.get(head["law"])
        return law.with_fixed(**head["fixed"]) if head["fixed"] else law
    from lawkit.laws.formula import FormulaLaw

    return FormulaLaw(head["formula"], head["sources"])


def _check_law(law: Law) -> None:
    """Refuses what `load_fit` could not find again."""
    if getattr(law, "formula", None) is not None:
        return
    try:
        known = laws.get(law.name) is (law.whole or law)
    except LawError:
        known = False
    if not known:
        raise FitError(
            f"law {law.name!r} is not registered, so its fit could not be loaded again: declare it under the "
            "entry-point group 'lawkit.laws' of its package"
        )


# ---- files ----------------------------------------------------------------------------------------------


def check_target(target: Path) -> None:
    """Refuses a place that a fit cannot be saved to; the command line asks before it works for hours.

    Raises
    ------
    FitError
        For what is no folder, a folder of other things, and one that cannot be written to.
    """
    target = Path(target)
    nearest = next(p for p in (target, *target.absolute().parents) if p.exists())
    if nearest.is_dir():
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            raise FitError(
                f"the fit cannot be written to {target}: {error.strerror or error}; name another folder with -o"
            ) from error
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FitError(f"{target} exists and is not a folder; name another with -o")
    if not target.is_dir():
        return
    foreign = sorted(p.name for p in target.iterdir() if not _ours(p.name))
    if foreign and not (target / _HEAD).is_file():
        raise FitError(
            f"{target} holds other files ({', '.join(foreign[:3])}) and is no fit folder; name another folder with -o"
        )


def _ours(name: str) -> bool:
    if name in (_HEAD, _LOCK) or re.fullmatch(r"arrays-.*\.npz|posterior-.*\.nc", name):
        return True
    return name.startswith((f".{_HEAD}.", ".arrays-", ".posterior-")) and name.endswith(".part")


def _make(target: Path, files: dict[str, bytes]) -> bool:
    """Makes the folder with its files in one step; False if another process made it meanwhile."""
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        beside.chmod(0o777 & ~UMASK)
        for name, content in files.items():
            replace_file(content, beside / name)
        try:
            beside.rename(target)
        except OSError:
            if target.is_dir():
                return False
            raise
        return True
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes arrays and temporary files of earlier saves: all that the fit.json there now does not name."""
    head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
    for path in folder.iterdir():
        if _ours(path.name) and path.name not in (_HEAD, _LOCK, head["arrays"], head["posterior_file"]):
            with contextlib.suppress(OSError):
                path.unlink()
