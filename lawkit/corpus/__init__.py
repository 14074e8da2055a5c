"""Text to tokens: sources in files become memory-mapped token ids, each with a training and a held-out side."""

from __future__ import annotations

from lawkit.corpus._results import CorpusStats, DomainStats, RareToken, SourceStats
from lawkit.corpus.builder import Progress, build
from lawkit.corpus.reader import Corpus, open_corpus
from lawkit.corpus.statistics import stats
from lawkit.errors import CorpusError

__all__ = [
    "Corpus",
    "CorpusError",
    "CorpusStats",
    "DomainStats",
    "Progress",
    "RareToken",
    "SourceStats",
    "build",
    "open_corpus",
    "stats",
]
