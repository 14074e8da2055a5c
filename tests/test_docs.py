"""Documentation that cannot drift from the code."""

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import lawkit
from lawkit import backends, generators, studies
from lawkit.cli import _docs

ROOT = Path(__file__).resolve().parent.parent


def test_cli_page_is_what_the_help_says():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == _docs.render(), "run `make docs`"


def test_check_notices_a_stale_page(tmp_path, capsys):
    page = tmp_path / "cli.md"
    assert _docs.main(["--check", str(page)]) == 1
    assert "make docs" in capsys.readouterr().err
    assert _docs.main([str(page)]) == 0
    assert _docs.main(["--check", str(page)]) == 0
    page.write_text(page.read_text(encoding="utf-8").replace("FIT", "FITS", 1), encoding="utf-8")
    assert _docs.main(["--check", str(page)]) == 1


#: Modules that import torch, which stays out of this process; they hold no examples.
WITH_TORCH = {
    f"lawkit.backends.torchtitan.{name}" for name in ("device", "evaluate", "loader", "model", "trainer")
}


def modules() -> list[str]:
    """Every module but the ``__main__`` ones; an editable install keeps the mapped folders elsewhere."""
    found = {"lawkit"}
    for package in (lawkit, backends, generators, studies):
        found.add(package.__name__)
        found.update(m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    return sorted(name for name in found if not name.endswith("__main__") and name not in WITH_TORCH)


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert not found.failed


def test_modules_with_torch_are_there_and_hold_no_examples():
    for name in WITH_TORCH:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        assert ">>>" not in Path(spec.origin).read_text(encoding="utf-8")


def test_mapped_packages_are_among_the_modules():
    assert {"lawkit.backends.replay", "lawkit.generators", "lawkit.studies", "lawkit.laws"} <= set(modules())
