"""The zoo of laws, and how third parties add to it.

A law of ours is one file of this package, named in `BUILTIN`. A third party's package declares an entry point in
the group ``lawkit.laws`` that loads a `Law` instance; it is then known by its name like the others.
"""

from __future__ import annotations

import difflib
import functools
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from lawkit.errors import LawError

if TYPE_CHECKING:
    from lawkit.laws._law import Law

#: (name, module, attribute) of every law of ours; a test compares it with the files on disk.
BUILTIN: tuple[tuple[str, str, str], ...] = (
    ("kaplan", "kaplan", "kaplan"),
    ("chinchilla", "chinchilla", "chinchilla"),
    ("chinchilla-data", "chinchilla_data", "chinchilla_data"),
    ("chinchilla-model", "chinchilla_model", "chinchilla_model"),
    ("chinchilla-coupled", "chinchilla_coupled", "chinchilla_coupled"),
    ("data-constrained", "data_constrained", "data_constrained"),
    ("over-training", "over_training", "over_training"),
    ("farseer", "farseer", "farseer"),
    ("m4", "m4", "m4"),
    ("bnsl", "bnsl", "bnsl"),
    ("bnsl-data", "bnsl", "bnsl_data"),
    ("bnsl-model", "bnsl", "bnsl_model"),
    ("exponential", "exponential", "exponential"),
    ("exponential-scale", "exponential", "exponential_scale"),
    ("additive", "additive", "additive"),
    ("joint", "additive", "joint"),
    ("bimix", "bimix", "bimix"),
    ("dcpt", "dcpt", "dcpt"),
    ("linear", "linear", "linear"),
    ("capacity", "capacity", "capacity"),
    ("capacity-plain", "capacity", "capacity_plain"),
    ("transfer", "transfer", "transfer"),
    ("transfer-plain", "transfer", "transfer_plain"),
    ("transfer-linear", "transfer", "transfer_linear"),
    ("transfer-average", "transfer", "transfer_average"),
)


#: What a law is written with; loaded when asked for, as sympy takes its time.
_PUBLIC = frozenset(
    [
        "Law",
        "Parameter",
        "Prior",
        "Objective",
        "Implicit",
        "N",
        "D",
        "U",
        "N_ref",
        "D_ref",
        "K",
        "h",
        "j",
        "own",
        "scalars",
        "vectors",
        "over_sources",
    ]
)


@functools.cache
def _third_party() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="lawkit.laws"):
        if point.name in {name for name, _, _ in BUILTIN} or point.name in found:
            raise LawError(
                f"two laws are called {point.name!r}; one comes from the entry point {point.value!r} of "
                f"{point.dist.name if point.dist else 'an unknown package'}: uninstall it or rename it there"
            )
        found[point.name] = point
    return found


def names() -> list[str]:
    """Names of all laws that are installed, ours first."""
    return [name for name, _, _ in BUILTIN] + sorted(_third_party())


@functools.cache
def get(name: str) -> Law:
    """The law of that name.

    Raises
    ------
    LawError
        If there is none, or a third party's entry point does not load a law.
    """
    from lawkit.laws._law import Law

    for builtin, module, attribute in BUILTIN:
        if name == builtin:
            return getattr(import_module(f"lawkit.laws.{module}"), attribute)
    point = _third_party().get(name)
    if point is None:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LawError(f"there is no law called {name!r}; {hint}`lawkit laws` lists all {len(names())}")
    try:
        law = point.load()
    except Exception as error:
        raise LawError(
            f"the entry point {point.value!r} of law {name!r} cannot be loaded: {error}"
        ) from error
    if not isinstance(law, Law):
        raise LawError(
            f"the entry point {point.value!r} loads a {type(law).__name__}, not an instance of lawkit.laws.Law"
        )
    return law


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module("lawkit.laws._law"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
