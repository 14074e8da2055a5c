"""lawkit: from cheap proxy runs to the data mixture for a training run nobody has done yet."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lawkit.design import propose_runs
    from lawkit.errors import LawkitError
    from lawkit.fitting import Fit, fit, load_fit
    from lawkit.io.importing import import_runs
    from lawkit.mixture import allocate, optimize_mixture
    from lawkit.runs import Runs, read_runs

__version__ = "0.1.0"

__all__ = [
    "Fit",
    "LawkitError",
    "Runs",
    "allocate",
    "fit",
    "import_runs",
    "load_fit",
    "optimize_mixture",
    "propose_runs",
    "read_runs",
]

_HOMES = {
    "Fit": "lawkit.fitting",
    "LawkitError": "lawkit.errors",
    "Runs": "lawkit.runs",
    "allocate": "lawkit.mixture",
    "fit": "lawkit.fitting",
    "import_runs": "lawkit.io.importing",
    "load_fit": "lawkit.fitting",
    "optimize_mixture": "lawkit.mixture",
    "propose_runs": "lawkit.design",
    "read_runs": "lawkit.runs",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that `lawkit --help` does not pay for sympy and scipy.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lawkit' has no attribute {name!r}")
