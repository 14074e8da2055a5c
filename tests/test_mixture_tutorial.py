"""The session in docs/mixtures.md: its commands run, and print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_quickstart import same

PAGE = Path(__file__).resolve().parent.parent / "docs" / "mixtures.md"


@pytest.mark.slow
def test_the_session_prints_what_the_page_shows(datasets: Path, tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```(sh|text)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert sum(kind == "text" for kind, _ in blocks) == 4
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "LAWKIT_DEBUG"}}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["LAWKIT_DATASETS"] = str(datasets.resolve())
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(content for kind, content in blocks if kind == "sh")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mixture.yaml").exists()
    printed = iter(done.stdout.splitlines())
    for kind, content in blocks:
        for line in content.splitlines() if kind == "text" else ():
            if line.strip() and line.strip() != "...":
                assert any(same(line, other) for other in printed), (
                    f"not printed any more, or not there: {line}"
                )
