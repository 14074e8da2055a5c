"""The session in docs/quickstart.md: its commands run, and print what the page shows."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lawkit.runs import read_runs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "quickstart.md"
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?")


def blocks() -> list[tuple[str, str]]:
    """The page's blocks in order, as ("sh" or "text", content)."""
    return re.findall(r"^```(sh|text)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def same(shown: str, printed: str) -> bool:
    """Whether two lines have the same words, and numbers that agree to 2% or in the last digits shown."""
    words = [" ".join(NUMBER.sub("#", line).split()) for line in (shown, printed)]
    if words[0] != words[1]:
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=0.005) for a, b in pairs)


@pytest.fixture(scope="module")
def session(datasets, tmp_path_factory) -> tuple[Path, str]:
    """Run the page's commands in one shell; the folder they ran in, and what they printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    scripts = "".join(content for kind, content in blocks() if kind == "sh")
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "LAWKIT_DEBUG"}}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["LAWKIT_DATASETS"] = str(datasets.resolve())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", scripts],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_session_prints_what_the_page_shows(session):
    printed = iter(session[1].splitlines())
    for kind, content in blocks():
        for line in content.splitlines() if kind == "text" else ():
            if line.strip() and line.strip() != "...":
                assert any(same(line, other) for other in printed), (
                    f"not printed any more, or not there: {line}"
                )


@pytest.mark.slow
def test_the_session_leaves_what_it_promises(session):
    folder, _ = session
    capped = json.loads((folder / "capped.json").read_text(encoding="utf-8"))
    assert sum(capped["weights"].values()) == pytest.approx(1, abs=1e-9)
    assert capped["weights"]["wikipedia"] <= 0.05 + 1e-9
    assert capped["weights"]["book"] <= 4 * 10e9 / 1e12 + 1e-9
    assert capped["certificate"] == "global"
    assert capped["optimality_gap"] < 1e-6
    assert capped["unconstrained"]["objective"] < capped["objective"]
    proposed = read_runs(folder / "next.csv", require_losses=False)
    assert 0 < len(proposed) <= 4
    assert proposed.flops is not None
    assert proposed.flops.sum() <= 1e20
    predicted = (folder / "predicted-60m.csv").read_text(encoding="utf-8").splitlines()
    assert len(predicted) == 257
    assert {"pred_arxiv", "lower_arxiv", "upper_arxiv", "loss_arxiv"} <= set(predicted[0].split(","))


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("c4   0.2671", "c4 0.2672", True),
        ("c4   0.2671", "c4 0.3672", False),
        ("objective  1.81 nats", "objective  1.81 bits", False),
        ("  at equal weights  1.82131", "  at equal weights  1.82140", True),
    ],
)
def test_lines_are_compared_by_words_and_numbers(shown, printed, agrees):
    assert same(shown, printed) is agrees
