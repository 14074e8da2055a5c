"""Results as JSON knows them."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """`value` with numbers that JSON does not know (NaN, infinity) as None, in mappings and lists too.

    Examples
    --------
    >>> finite({"k": [1.0, float("inf")]})
    {'k': [1.0, None]}
    """
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
