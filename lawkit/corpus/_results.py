"""What the statistics of a corpus are told in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.corpus._ngrams import Copies
from lawkit.corpus._unigrams import Lengths, Zipf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CorpusStats", "DomainStats", "RareToken", "SourceStats"]


@dataclass(frozen=True, kw_only=True)
class RareToken:
    """A token that is frequent in a domain's held-out text and rare in a source.

    Attributes
    ----------
    id, text : int, str
        The token, and how it is spelt.
    domain, source : float
        Its relative frequency in each, as counted.
    kl : float
        What it adds to the divergence, in nats.
    loss, loss_share : float or None
        The proxy's mean loss on it in nats, and its share of the proxy's total loss in the domain; None without a
        proxy, or where none of the proxy's rows has it.
    """

    id: int
    text: str
    domain: float
    source: float
    kl: float
    loss: float | None = None
    loss_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class DomainStats:
    """A source seen from the held-out text of one domain.

    Attributes
    ----------
    type_coverage, token_coverage : float
        The share of the domain's types, and of its tokens, whose type occurs in the source.
    type_coverage_equal, token_coverage_equal : float
        The same, expected of as many tokens from each source.
    kl : float
        KL(domain ‖ source) of the unigrams, in nats.
    n_rare : int
        Types that are rare in the source: they occur 10 times or more in the domain, and are at least 10 times as
        frequent there as in the source.
    rare_share, rare_kl : float
        Their share of the domain's tokens, and what they add to the divergence.
    rare_loss, rare_loss_share : float or None
        The proxy's mean loss on them in nats, and their share of its total loss.
    rare : list of RareToken
        The first of them, by their share of the loss, without a proxy by what they add to the divergence.
    """

    type_coverage: float
    token_coverage: float
    type_coverage_equal: float
    token_coverage_equal: float
    kl: float
    n_rare: int
    rare_share: float
    rare_kl: float
    rare_loss: float | None
    rare_loss_share: float | None
    rare: list[RareToken]


@dataclass(frozen=True, kw_only=True)
class SourceStats:
    """What a source's training text is made of.

    Attributes
    ----------
    n_tokens, n_documents, n_types : int
        Tokens without BOS and EOS, documents, and different tokens.
    zipf : Zipf or None
        Zipf's law; None where too few types are frequent.
    distinct : dict of str to float or None
        For n of 1 to 4, the share of different ones among equally many runs of n tokens of each source.
    lengths : Lengths
        Of the documents.
    copies : Copies or None
        How much of the source is copied from its input, where one is named.
    domains : dict of str to DomainStats
        By domain.
    counts : (vocab_size,) array of int
        How often each token occurs; not in `to_dict`.
    """

    n_tokens: int
    n_documents: int
    n_types: int
    zipf: Zipf | None
    distinct: dict[str, float | None]
    lengths: Lengths
    copies: Copies | None
    domains: dict[str, DomainStats]
    counts: NDArray[np.int64] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    """Statistics of sources against domains; made by `stats`.

    Attributes
    ----------
    corpus, digest, vocab_size : Path, str, int
        The corpus whose tokenizer and held-out texts were used.
    smoothing : float
        Added to each count of a source.
    equal_tokens : int
        Tokens of each source that `distinct` and the coverages called equal are of.
    distinct_runs : dict of str to int
        For n of 1 to 4, how many runs of each source were compared.
    domains : dict of str to dict
        Of each domain's held-out text: n_tokens, n_types and, with a proxy, its loss and the tokens it was tried on.
    proxy : dict or None
        The proxy's run, step and mixture weights.
    sources : dict of str to SourceStats
        By source.
    n_tokens_read, seconds : int, float
        Tokens that were read (a text that is looked for copies in counts each time it is read), and how long it took,
        the proxy not counted.
    warnings : list of str
        What is odd.
    """

    corpus: Path
    digest: str
    vocab_size: int
    smoothing: float
    equal_tokens: int
    distinct_runs: dict[str, int]
    domains: dict[str, dict[str, Any]]
    proxy: dict[str, Any] | None
    sources: dict[str, SourceStats]
    n_tokens_read: int
    seconds: float
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """All but the counts, as JSON knows it."""
        found = asdict(self)
        for source in found["sources"].values():
            del source["counts"]
        return {**found, "corpus": str(self.corpus)}
