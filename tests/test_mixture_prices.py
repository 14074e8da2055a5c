"""Prices of limits at corners, and of sums held at one value."""

from __future__ import annotations

import numpy as np
import pytest
from test_mixture import SCALE, names, random_fit

from lawkit import optimize_mixture
from lawkit.errors import OptimizeError
from lawkit.mixture import prices
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.solve import Solution


@pytest.mark.parametrize("sources", [["s0", "s1"], ["s2", "s3", "s4"]])
@pytest.mark.parametrize("held", [0.2, 0.8])
def test_a_group_held_at_one_value_has_one_price_and_moving_it_agrees(
    sources: list[str], held: float
) -> None:
    fit = random_fit("transfer", 6, 4, 2)

    def at(value: float):
        return optimize_mixture(
            fit, **SCALE, groups={"g": {"sources": sources, "lower": value, "upper": value}}
        )

    result = at(held)
    (found,) = (a for a in result.active if a.name == "g")
    assert (found.kind, str(found)) == ("fixed", f"g ({' + '.join(sources)}) = {held:g}")
    measured = (at(held + 1e-3).objective - at(held - 1e-3).objective) / 2e-3
    assert result.shadow_prices["g"] == pytest.approx(measured, rel=0.02)
    assert abs(measured) > 1e-4


def test_a_sum_whose_price_slopes_do_not_tell_is_moved_at_both_ends() -> None:
    """All weights are held: one of the two groups gains from weight, the other loses."""
    groups = {"g": {"sources": ["a", "b"], "lower": 0.5, "upper": 0.5}}
    problem = MixtureProblem.build("abcd", "e", groups=groups, bounds={"a": (0.2, 1), "c": (0.3, 1)})
    h = np.array([0.2, 0.3, 0.3, 0.2])
    at = Solution(h, 1.0, np.zeros(4), 0.0, "global", None)

    def best(moved: MixtureProblem) -> float:
        low, high = (s.value for s in moved.rows)
        assert low == high
        return 1.0 + 3 * (high - 0.5)

    (group,) = (s for s in problem.rows if s.sense == "<=")
    price = prices._moved(problem, group, at.objective, best, True)
    assert price == pytest.approx(3.0)


def test_prices_have_the_sign_of_their_sense_where_limits_leave_one_mixture() -> None:
    """Caps that sum to 1 leave nothing to choose: raising one helps or does nothing, and moving it agrees."""
    fit = random_fit("transfer", 4, 3, 1)
    caps = dict(zip(names(4), (0.4, 0.3, 0.2, 0.1), strict=True))
    for side, sign in ((1, -1.0), (0, 1.0)):
        bounds = {s: (None, v) if side else (v, None) for s, v in caps.items()}
        result = optimize_mixture(fit, **SCALE, bounds=bounds)
        assert len(result.active) == 4
        assert any(a.price != 0 for a in result.active)
        for found in result.active:
            assert sign * found.price >= 0
            limit = caps[found.name] - sign * 1e-4
            moved = {**bounds, found.name: (None, limit) if side else (limit, None)}
            other = optimize_mixture(fit, **SCALE, bounds=moved)
            measured = (other.objective - result.objective) / (-sign * 1e-4)
            assert found.price == pytest.approx(measured, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("name", ["generation", "divergence", "loss_d0"])
def test_groups_are_not_named_like_other_limits(name: str) -> None:
    group = {"sources": ["s0"], "upper": 0.5}
    with pytest.raises(OptimizeError, match="prices of other limits go by"):
        optimize_mixture(random_fit("transfer", 3, 2, 0), **SCALE, groups={name: group})
