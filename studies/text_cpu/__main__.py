"""Go through the study: ``python -m lawkit.studies.text_cpu [--folder DIR] [--no-live] [--json]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lawkit.cli import _output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and print it; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m lawkit.studies.text_cpu",
        description="Fit, predict, optimise and propose on proxy runs that were trained on two cores, then train one "
        "of the proposed runs here and compare.",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("out/text_cpu"), help="where the corpus and the run are kept"
    )
    parser.add_argument("--no-live", action="store_true", help="train nothing")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    options = parser.parse_args(given)
    return _output.guarded(
        lambda: _run(options), ["LAWKIT_DEBUG=1", "python", "-m", "lawkit.studies.text_cpu", *given]
    )


def _run(options: argparse.Namespace) -> None:
    import lawkit
    from lawkit.studies.text_cpu import forecast, live, page

    quiet = options.as_json
    show = (lambda *_: None) if quiet else page.show
    with _output.quiet_libraries():
        runs = forecast.recorded()
        result: dict[str, Any] = {"seed_noise": forecast.seed_noise(runs)}
        show("runs", {"runs": runs, "seed_noise": result["seed_noise"], "made": forecast.provenance()})
        with _output.working("fitting the two smaller sizes", quiet=quiet):
            result["holdout"], _ = forecast.holdout(runs)
        show("holdout", result["holdout"])
        result["decision"] = forecast.decision()
        show("decision", result["decision"])
        with _output.working("fitting all runs", quiet=quiet):
            fit = lawkit.fit(runs)
            result |= forecast.decide(fit)
        show("optimum", {**result["optimum"], **forecast.TARGET})
        show("proposal", result["proposal"])
        if not options.no_live and live.possible():
            first = result["proposal"]["runs"][0]
            result["live"] = live.outcome(fit, first, options.folder, _output.note)
            show("live", result["live"])
    if quiet:
        _output.emit_json(result)
    elif "live" not in result and not options.no_live:
        _output.note("torchtitan is not installed here, so nothing was trained: make demo installs it")


if __name__ == "__main__":
    sys.exit(main())
