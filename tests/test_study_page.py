"""The page of a study: what it says, and what a browser makes of it on a wide and on a narrow screen."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lawkit.cli import main
from lawkit.errors import ReportError
from lawkit.report.study_page import write_study_page
from lawkit.study import run_study
from simulated_studies import SPEC, rounds_of, study


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A name that would end a script, or begin a tag, if it were not escaped.
    text = SPEC.replace("rounds = 2", "rounds = 1").replace(
        "backend.parameters.code]", 'backend.parameters."</script><b>"]'
    )
    folder = study(tmp_path_factory.mktemp("reported"), text)
    run_study(folder)
    for _ in range(2):  # an older page is replaced
        write_study_page(folder, folder / "page.html")
    return folder


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        said = "a Chromium must be installed (apt-get install chromium)"
        if os.environ.get("LAWKIT_REQUIRE_ALL") == "1":
            pytest.fail(said)
        pytest.skip(said)
    return found


#: Runs in the page when it is loaded: what a reader would see and could press, left in its title.
PROBE = """
<script>
addEventListener("error", (e) => { (window.wrong = window.wrong || []).push(e.message); });
addEventListener("load", () => {
  const tip = document.getElementById("tip"), root = document.documentElement;
  const dots = (name) => document.querySelectorAll(`svg[data-figure=${name}] circle`).length;
  const dot = document.querySelector("svg[data-figure=losses] circle");
  dot.dispatchEvent(new PointerEvent("pointermove", { clientX: innerWidth - 5, clientY: 40 }));
  const box = tip.getBoundingClientRect();
  const before = dot.getAttribute("cy"), pick = document.getElementById("domain");
  pick.selectedIndex = 1;
  pick.dispatchEvent(new Event("change"));
  const after = document.querySelector("svg[data-figure=losses] circle").getAttribute("cy");
  const table = document.querySelector("table.sortable");
  const flops = () => [...table.tBodies[0].rows].map((row) => +row.cells[6].dataset.value);
  table.querySelectorAll("th button")[6].click();
  const up = flops();
  table.querySelectorAll("th button")[6].click();
  const figures = [...document.querySelectorAll("svg[data-figure]")].map((svg) => svg.getBoundingClientRect());
  document.title = JSON.stringify({
    wrong: window.wrong || [], width: innerWidth, overflow: root.scrollWidth - innerWidth, tip: tip.textContent,
    tip_inside: box.left >= 0 && box.right <= innerWidth, moved: before !== after,
    regret: dots("regret"), weights: dots("weights"), losses: dots("losses"), fit: dots("fit"),
    sorted: up.every((v, i) => !i || up[i - 1] <= v) && flops().every((v, i, all) => !i || all[i - 1] >= v),
    narrow: Math.min(...figures.map((r) => r.width)), beside: figures[0].left !== figures[1].left,
    small: Math.min(...[...document.querySelectorAll("p, td, li, text")].map(
      (n) => parseFloat(getComputedStyle(n).fontSize))),
    loaded: performance.getEntriesByType("resource").length,
  });
});
</script>
"""


def seen(folder: Path, width: int) -> dict:
    """What the probe found in a window of that width; a frame, since a window has a least width."""
    page = (folder / "page.html").read_text(encoding="utf-8").replace("<style>", PROBE + "<style>", 1)
    frame = (
        "<!doctype html><meta charset=utf-8><body style='margin:0'>"
        f'<iframe id=f style="width:{width}px;height:3000px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        "<script>onload = () => { document.title = document.getElementById('f').contentDocument.title; };</script>"
    )
    (folder / "frame.html").write_text(frame, encoding="utf-8")
    done = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1300,3000",
            "--virtual-time-budget=5000", f"--user-data-dir={folder / 'browser'}",
            f"--screenshot={folder / f'page-{width}.png'}", "--dump-dom", (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, (done.stdout[-500:], done.stderr[-500:])
    return json.loads(html.unescape(title[1]))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "beside"), [(1280, True), (400, False)])
def test_a_browser_shows_it_whole(reported, width, beside):
    found = seen(reported, width)
    assert found["wrong"] == []
    assert found["loaded"] == 0
    assert (found["width"], found["overflow"]) == (width, 0)
    assert found["beside"] is beside
    assert found["narrow"] > 300
    assert found["small"] >= 12
    assert found["tip"].splitlines()[0].endswith(tuple("0123456789abcdef"))
    assert found["tip_inside"]
    assert found["moved"], "another domain shows other losses"
    assert found["sorted"]
    assert (found["regret"], found["weights"], found["losses"], found["fit"]) == (2, 4, 17, 17)


def test_the_page_says_what_was_decided(reported):
    page = (reported / "page.html").read_text(encoding="utf-8")
    decision = rounds_of(reported)[-1]
    for name, weight in decision["decision"]["weights"].items():
        assert f"{100 * weight:.1f}% {name}" in page or weight < 5e-4
    assert f"Stopped because of {decision['stop']}." in page
    assert "The run that was to be planned: 7B parameters" in page
    assert "With the budget renewed, 3 proxy runs would teach most about it" in page
    assert page.count("</script>") == 2
    assert "&lt;/script&gt;&lt;b&gt;" in page
    assert "src=" not in page
    assert "href=" not in page


def test_a_study_that_has_not_stopped_says_what_is_next(reported, tmp_path):
    folder = shutil.copytree(reported, tmp_path / "s")
    text = (folder / "study.toml").read_text()
    import sqlite3

    with sqlite3.connect(folder / "study.sqlite") as db:
        db.execute("UPDATE rounds SET stop = NULL")
    db.close()
    text = text.replace("rounds = 1", "rounds = 9") + "# http://me:sesame@node7/v1\n"
    (folder / "study.toml").write_text(text)
    assert main(["study", "report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://node7/v1" in page
    assert "sesame" not in page
    assert "The study has not stopped yet." in page
    assert "<p>3 proxy runs would teach most about it" in page


def test_nothing_to_report_is_one_message(tmp_path, capsys):
    folder = study(tmp_path)
    assert main(["study", "report", str(folder)]) == 1
    assert "has nothing to report: lawkit study run" in capsys.readouterr().err
    with pytest.raises(ReportError, match="nothing to report"):
        write_study_page(folder, tmp_path / "page.html")
    assert main(["study", "report", str(tmp_path / "none")]) == 1
    assert "is no study" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_one_message(reported, capsys):
    assert main(["study", "report", str(reported), "-o", str(reported / "none" / "page.html")]) == 1
    assert "page.html" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["study.toml", "study.sqlite", "runs.csv"])
def test_a_page_replaces_nothing_but_a_page(reported, capsys, name):
    before = (reported / name).read_bytes()
    assert main(["study", "report", str(reported), "-o", str(reported / name)]) == 1
    assert f"{name} is no page, and what it holds would be lost" in capsys.readouterr().err
    assert (reported / name).read_bytes() == before
