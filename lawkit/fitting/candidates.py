"""Which laws a table allows, and why others cannot be fitted to it."""

from __future__ import annotations

import numpy as np

from lawkit import laws as zoo
from lawkit.errors import FitError, LawkitError
from lawkit.fitting.judging import Judge, unvaried
from lawkit.fitting.prepare import check_columns, some, usable_domains
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: Names of laws that are not considered, and the reasons.
Refused = list[tuple[str, str]]


def candidates(runs: Runs) -> tuple[list[Law], Refused]:
    """All laws that the columns allow and that can be fitted to every domain, the likely and cheap first.

    Laws that need columns which the table does not have are no candidates, and not among the refused either.
    """
    mixed = bool(runs.sources) and bool((np.ptp(runs.weights, axis=0) > 1e-6).any())
    constant = set(unvaried(runs))
    found: list[tuple[tuple[bool, int, bool, int], Law]] = []
    refused: Refused = []
    for name in zoo.names():
        try:
            law = zoo.get(name)
        except LawkitError as error:  # a third party's that does not load
            refused.append((name, str(error)))
            continue
        if ("weights" in law.columns and not mixed) or not _has_columns(law, runs):
            continue
        try:
            usable = usable_domains(law, runs)[0]
        except FitError as error:
            refused.append((name, str(error)))
            continue
        if missing := [d for i, d in enumerate(runs.domains) if i not in usable]:
            refused.append((name, f"cannot be fitted to {some(missing)}, not among the sources"))
            continue
        groundless = bool(constant & law.columns) and Judge.groundless(law)
        size = law.n_parameters(len(runs.sources))
        found.append(
            ((mixed and "weights" not in law.columns, len(constant - law.columns), groundless, size), law)
        )
    return [law for _, law in sorted(found, key=lambda pair: pair[0])], refused


def on_shared_domains(runs: Runs, laws: list[Law]) -> tuple[Runs, list[Law], Refused, list[str]]:
    """The runs with the domains that all laws can be fitted to, the laws that can be, the others, and warnings."""
    shared = set(range(len(runs.domains)))
    fitting: list[Law] = []
    refused: Refused = []
    for law in laws:
        try:
            check_columns(law, runs)
            shared &= set(usable_domains(law, runs)[0])
            fitting.append(law)
        except FitError as error:
            refused.append((law.name, str(error)))
    without = [d for i, d in enumerate(runs.domains) if i not in shared]
    if not without:
        return runs, fitting, refused, []
    note = f"compared without {some(without)}: not all of the laws can be fitted to {'them' if without[1:] else 'it'}"
    return runs.with_domains([d for d in runs.domains if d not in without]), fitting, refused, [note]


def _has_columns(law: Law, runs: Runs) -> bool:
    try:
        check_columns(law, runs)
    except FitError:
        return False
    return True
