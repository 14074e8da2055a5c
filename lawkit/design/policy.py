"""How a study spends: a little at a time, and no further than until it has been sure twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Of what a study has spent so far, what it spends in one turn.
RATION = 0.2
#: Runs that a turn may always have, whatever was spent.
LEAST = 2
#: Regret is expected to second order in what is not known, which tells nothing where this part of the loss is at stake.
CREDIBLE = 0.01
#: A study is done when expected regret was within its tolerance in this many turns on end.
TURNS = 2


def ration(spent: float, cheapest: float, share: float = RATION) -> float:
    """Flops of the next turn.

    So a study climbs the sizes slowly, with others known before a dear one: a law reads a single run there as an effect
    of size, whatever else it is, and the choice of a mixture flips with it.

    Parameters
    ----------
    spent
        Flops of all runs so far.
    cheapest
        Flops of the cheapest run that could come next.
    share
        Of what was spent.
    """
    return max(LEAST * cheapest, share * spent)


def method_now(method: str, expected: float) -> str:
    """The criterion of the next turn: 'variance' as long as regret is asked for and cannot be told, see `CREDIBLE`.

    Parameters
    ----------
    method
        The one that a study goes by.
    expected
        Regret that the fit expects now, over the loss.
    """
    return "variance" if method == "regret" and expected > CREDIBLE else method


def settled(expected: Sequence[float] | np.ndarray, tolerance: float) -> bool:
    """Whether a study need not go on: expected regret was within the tolerance in the last `TURNS` turns.

    One turn is not enough. A fit to few runs is now and then sure of itself by chance; the next turn's runs are
    chosen to find that out.
    """
    return len(expected) >= TURNS and all(e <= tolerance for e in expected[-TURNS:])
