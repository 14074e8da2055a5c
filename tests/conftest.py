"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One profile everywhere: examples are the same in every run, and a slow machine is no failure.
settings.register_profile(
    "lawkit", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lawkit")


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Return the folder of the public tables, named by LAWKIT_DATASETS."""
    named = os.environ.get("LAWKIT_DATASETS")
    if named and Path(named).is_dir():
        return Path(named)
    message = f"the public tables are needed: LAWKIT_DATASETS is {named!r}, which is no folder"
    if os.environ.get("LAWKIT_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
