"""Packages that whole test modules need: without them a module is skipped here, and fails where all are required."""

from __future__ import annotations

import importlib
import os

import pytest


def need(*packages: str) -> None:
    """Import `packages`, or leave the module that is being collected (with LAWKIT_REQUIRE_ALL=1: fail)."""
    try:
        if "pymc" in packages:
            from lawkit.bayes import _arviz

            _arviz.arviz()  # before PyMC imports it, and lets its notices through
        for name in packages:
            importlib.import_module(name)
    except Exception as error:
        if os.environ.get("LAWKIT_REQUIRE_ALL") == "1":
            raise
        pytest.skip(f"needs {' and '.join(packages)}: {error}", allow_module_level=True)
