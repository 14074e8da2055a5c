"""Fixtures that several tests share."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from needs import need

# One profile everywhere: examples are the same in every run, and a slow machine is no failure.
settings.register_profile(
    "lawkit", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lawkit")

# A shell that starts the suite in the background lets it ignore Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Nor does the width of the terminal that runs the suite, which its processes are told, change what commands print.
os.environ.pop("COLUMNS", None)


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


@pytest.fixture(scope="session")
def torchtitan() -> None:
    """Of tests that train: what they need is installed."""
    need("torchtitan")


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a corpus of two sources, from text that every Python has."""
    need("tokenizers")
    import pydoc_data.topics

    from lawkit.corpus import build

    folder = tmp_path_factory.mktemp("corpus")
    prose = [text for text in pydoc_data.topics.topics.values() if len(text) > 400]
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(os.__file__).parent.glob("[a-c]*.py"))]
    sources = {}
    for name, texts in {"prose": prose, "code": code}.items():
        sources[name] = folder / f"{name}.jsonl"
        sources[name].write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8"
        )
    return build(sources, folder / "built", vocab_size=300, holdout=0.1).path
