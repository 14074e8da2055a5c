"""Run the study: ``python -m lawkit.studies.kang2025 [--json]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lawkit.cli import _output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and print it; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m lawkit.studies.kang2025",
        description="Fit, predict, optimise and propose on the published curves of Kang et al. 2025.",
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    options = parser.parse_args(given)
    return _output.guarded(
        lambda: _run(options.as_json), ["LAWKIT_DEBUG=1", "python", "-m", "lawkit.studies.kang2025", *given]
    )


def _run(as_json: bool) -> None:
    from lawkit.studies.kang2025 import page, study

    with _output.quiet_libraries(), _output.working("fitting", quiet=as_json):
        result = study.run()
    _output.show_warnings(result["mixture_law"]["warnings"])
    if as_json:
        _output.emit_json(result)
    else:
        page.show(result)


if __name__ == "__main__":
    sys.exit(main())
