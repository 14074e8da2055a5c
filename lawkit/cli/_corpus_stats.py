"""``lawkit corpus stats``: what sources are made of, next to the text that models are evaluated on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output
from lawkit.cli._options import files_by_name, reading_options
from lawkit.cli._types import SIZE

if TYPE_CHECKING:
    from lawkit.corpus import CorpusStats, RareToken

_BARS = " ▁▂▃▄▅▆▇█"
#: Rare tokens that a table names for each source and domain.
_NAMED = 5
#: Characters of a token there; some tokens are a line of blanks.
_QUOTED = 16


@click.command("stats")
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, metavar="[SOURCE|NAME=FILES]...")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="D",
    help="Compare with this source's held-out text; may be repeated.  [default: all]",
)
@click.option("--input", metavar="NAME", help="What the others were made from: count what they copy of it.")
@click.option(
    "--proxy",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of a run on this corpus that kept its checkpoint: what rare tokens cost it.",
)
@click.option("--python", metavar="FILE", help="Interpreter that has torchtitan, for --proxy.")
@click.option(
    "--smoothing",
    type=float,
    default=0.5,
    show_default=True,
    help="Added to each count of a source for the KL.",
)
@click.option(
    "--sample",
    "sample_tokens",
    type=SIZE,
    default=1 << 20,
    metavar="TOKENS",
    help="Most tokens of a source to measure diversity and copies on.  [default: 1,048,576]",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Rare tokens of each source and domain.",
)
@reading_options
@click.option(
    "--figures", type=click.Path(path_type=Path), metavar="FOLDER", help="Save figures as PNG and SVG."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats_(
    corpus: Path,
    sources: tuple[str, ...],
    domains: tuple[str, ...],
    input: str | None,
    sample_tokens: float,
    figures: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Describe sources, and compare them with each domain's held-out text.

    CORPUS is the folder that lawkit corpus build printed. SOURCE is one of its sources;
    NAME=FILES is other text, such as what a generator wrote, which is encoded with the
    corpus's tokenizer for the time being. By default all sources of the corpus are
    described.

    KL is that of the domain's unigrams from the source's, in nats: what a token of the
    domain costs more under the source's unigram model than under its own. A token is rare
    in a source when it occurs 10 times or more in the domain and is at least 10 times as
    frequent there. Diversity compares equally many tokens of each source.

    \b
    Examples:
      lawkit corpus stats corpora/3f0c9a
      lawkit corpus stats corpora/3f0c9a hq='generated/*.jsonl' --input web
      lawkit corpus stats corpora/3f0c9a web hq --domain wiki \\
          --proxy study/runs/27k-1M-s0-0a1b2c3d --figures figures
    """
    from lawkit.corpus import stats

    if figures is not None:
        from lawkit.report._files import check_folder

        check_folder(figures)
    worked = time.process_time()
    with _output.working("reading the corpus", quiet=as_json):
        found = stats(
            corpus,
            [name for name in sources if "=" not in name] or None,
            text=files_by_name(name for name in sources if "=" in name),
            domains=domains or None,
            input=input,
            sample_tokens=int(sample_tokens),
            **options,
        )
    cpu = time.process_time() - worked
    if figures is not None:
        _draw(found, figures)
    if as_json:
        _output.emit_json({**found.to_dict(), "cpu_seconds": cpu})
        return
    _output.show_warnings(found.warnings)
    _show(found)
    _output.note(
        f"{_output.size(found.n_tokens_read)} tokens read in {found.seconds:.1f} s ({cpu:.1f} s of CPU): "
        f"{found.n_tokens_read / 1e6 / max(found.seconds, 1e-9):.1f} million tokens/s"
    )
    if figures is not None:
        _output.note(f"figures in {figures}")


def _draw(found: CorpusStats, folder: Path) -> None:
    from lawkit.report import domain_figure, length_figure, save, unigram_figure

    for name, draw in (("unigrams", unigram_figure), ("domains", domain_figure), ("lengths", length_figure)):
        save(draw(found), folder, name)


def _show(found: CorpusStats) -> None:
    several = len(found.sources) > 1
    _output.show_table(
        ["source", "tokens", "types", "Zipf exponent", *(f"distinct-{n}" for n in found.distinct_runs)],
        [
            [
                name,
                _output.size(s.n_tokens),
                s.n_types,
                s.zipf and f"{s.zipf.exponent:.3f}" + (f" ± {s.zipf.se:.3f}" if s.zipf.se else ""),
                *(None if v is None else f"{v:.4f}" for v in s.distinct.values()),
            ]
            for name, s in found.sources.items()
        ],
        title=f"sources (distinct-n of {_output.size(found.equal_tokens)} tokens{' of each' if several else ''})",
    )
    _output.say()
    _output.show_table(
        ["source", "documents", "mean", "p5", "p25", "p50", "p75", "p95", "longest", "by powers of two"],
        [
            [
                name,
                s.n_documents,
                s.lengths.mean,
                *s.lengths.quantiles.values(),
                s.lengths.longest,
                f"{s.lengths.edges[0]} {_bars(s.lengths.counts)} {_output.size(s.lengths.edges[-1])}",
            ]
            for name, s in found.sources.items()
        ],
        title="lengths of documents, in tokens",
    )
    _output.say()
    pairs = [(name, domain, d) for name, s in found.sources.items() for domain, d in s.domains.items()]
    equal = f"of {_output.size(found.equal_tokens)}"
    _output.show_table(
        ["source", "domain", "KL", "types covered", equal, "tokens covered", equal],
        [
            [
                name,
                domain,
                f"{d.kl:.4f}",
                _output.percent(d.type_coverage),
                _output.percent(d.type_coverage_equal),
                _output.percent(d.token_coverage, 3),
                _output.percent(d.token_coverage_equal, 3),
            ]
            for name, domain, d in pairs
        ],
        title=f"against held-out text: KL(domain ‖ source) in nats, {found.smoothing:g} added to a source's counts",
    )
    _output.say()
    _output.show_table(
        [
            "source",
            "domain",
            "rare types",
            "of tokens",
            "of KL",
            "loss on them",
            "of loss",
            "the first of them",
        ],
        [
            [
                name,
                domain,
                d.n_rare,
                _output.percent(d.rare_share),
                _output.percent(d.rare_kl / d.kl) if d.kl > 0 else None,
                None if d.rare_loss is None else f"{d.rare_loss:.3f}",
                None if d.rare_loss_share is None else _output.percent(d.rare_loss_share),
                _named(d.rare) or None,
            ]
            for name, domain, d in pairs
        ],
        title="tokens frequent in a domain and rare in a source"
        + (", and what they cost the proxy" if found.proxy else ""),
    )
    if any(s.copies for s in found.sources.values()):
        _output.say()
        _show_copies(found)


def _show_copies(found: CorpusStats) -> None:
    copied = {name: s.copies for name, s in found.sources.items() if s.copies}
    _output.show_table(
        ["source", "of tokens", "8-token runs", "held-out input's", "13-token runs", "held-out input's ",
         "copied documents", "longest run"],
        [
            [
                name,
                _output.size(c.n_tokens),
                *(
                    None if share is None else _output.percent(share)
                    for share in (c.share_8, c.baseline_8, c.share_13, c.baseline_13, c.documents)
                ),
                c.longest,
            ]
            for name, c in copied.items()
        ],
        title=f"copied word for word from {next(iter(copied.values())).input}",
    )  # fmt: skip


def _named(rare: list[RareToken]) -> str:
    """The first tokens, each with its share of the loss or what it adds to the divergence."""
    return ", ".join(
        f"{_short(t.text)} " + (f"{t.kl:.2g}" if t.loss_share is None else _output.percent(t.loss_share))
        for t in rare[:_NAMED]
    )


def _short(text: str) -> str:
    quoted = repr(text)
    return quoted if len(quoted) <= _QUOTED else f"{quoted[: _QUOTED - 2]}…'"


def _bars(counts: list[int]) -> str:
    most = max(counts)
    return "".join(_BARS[-(-8 * n // most)] for n in counts)
