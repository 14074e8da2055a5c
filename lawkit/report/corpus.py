"""What sources are made of: unigrams against Zipf's law, distances to the domains, lengths of documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.report._style import (
    FAINT,
    PANELS,
    finish,
    head,
    listed,
    log_axis,
    look,
    panels,
    percent,
    power,
    size,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lawkit.corpus import CorpusStats, DomainStats


@styled
def unigram_figure(stats: CorpusStats) -> Figure:
    """Frequency against rank, and the fitted law of Zipf: a panel a source.

    Parameters
    ----------
    stats
        From `lawkit.corpus.stats`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        Without matplotlib.
    """
    shown = list(stats.sources)[:PANELS]
    figure, axes = panels(len(shown), 1.7, sharex=True, sharey=True)
    most = max(s.n_types for s in stats.sources.values())
    for i, (ax, name) in enumerate(zip(axes, shown, strict=True)):
        about, style = stats.sources[name], look(i)
        frequency = np.sort(about.counts[about.counts > 0])[::-1] / about.n_tokens
        ranks = np.unique(np.geomspace(1, len(frequency), 200).round().astype(int))
        ax.plot(ranks, frequency[ranks - 1], color=style.color, marker=".", ms=2.5, linestyle="none")
        note = ""
        if (law := about.zipf) is not None:
            each = np.arange(1, law.n_ranks + 1) ** -law.exponent
            each *= frequency[: law.n_ranks].sum() / each.sum()
            line = ranks[ranks <= law.n_ranks]
            ax.plot(line, each[line - 1], color="black", linewidth=0.8)
            note = f"exponent {law.exponent:.3f}" + (f" ± {law.se:.3f}" if law.se else "")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda v, _: power(v))
        log_axis(ax, np.array([1.0, most * 1.2]), lambda v: f"{v:.0f}" if v < 1000 else size(v))
        head(ax, name, note)
    return finish(
        figure,
        "Frequency against rank",
        [
            "Lines: Zipf's law, by maximum likelihood over the types that occur 20 times or more; ± one standard "
            "error, from how the parts of the text differ.",
            _not_shown(stats),
        ],
        [],
        "rank",
        "share of the tokens",
    )


@styled
def domain_figure(stats: CorpusStats) -> Figure:
    """How far each source is from each domain: divergence, tokens it lacks, and what its rare tokens cost a proxy.

    Parameters
    ----------
    stats
        From `lawkit.corpus.stats`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        Without matplotlib.
    """
    from matplotlib.lines import Line2D

    columns: list[tuple[str, Callable[[DomainStats], float | None]]] = [
        ("KL(domain ‖ source), nats", lambda d: d.kl),
        ("tokens of types it lacks", lambda d: 1 - d.token_coverage_equal),
    ]
    if stats.proxy is None:
        columns.append(("tokens rare in the source", lambda d: d.rare_share))
    else:
        columns.append(("loss on tokens rare in it", lambda d: d.rare_loss_share))
    domains = list(stats.domains)
    figure, axes = panels(3, max(1.3, 0.4 + 0.22 * len(domains)), sharey=True)
    places = np.arange(len(domains))
    shift = np.linspace(-0.25, 0.25, len(stats.sources)) if len(stats.sources) > 1 else [0.0]
    handles: list[Any] = []
    for i, (name, about) in enumerate(stats.sources.items()):
        style = look(i)
        for ax, (_, value) in zip(axes, columns, strict=True):
            x = [np.nan if (v := value(about.domains[d])) is None else v for d in domains]
            ax.plot(
                x,
                places + shift[i],
                color=style.color,
                marker=style.marker,
                ms=4,
                linestyle="none",
                clip_on=False,
            )
        handles.append(
            Line2D([], [], color=style.color, marker=style.marker, ms=4, linestyle="none", label=name)
        )
    for ax, (label, _) in zip(axes, columns, strict=True):
        for y in places[:-1]:
            ax.axhline(y + 0.5, color=FAINT, linewidth=0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlim(left=0)
        if label.startswith(("tokens", "loss")):
            ax.xaxis.set_major_formatter(lambda v, _: percent(v) if v else "0")
        ax.xaxis.get_major_locator().set_params(nbins=4)  # type: ignore[attr-defined]
        head(ax, label)
    axes[0].set_yticks(places, [name if len(name) < 20 else f"{name[:18]}…" for name in domains])
    axes[0].set_ylim(len(domains) - 0.5, -0.5)
    return finish(
        figure,
        "Held-out text of each domain, seen from each source",
        [
            f"The divergence is of unigrams, with {stats.smoothing:g} added to each of the source's counts. Lacking is "
            f"expected of {size(stats.equal_tokens)} tokens of each source. Rare tokens occur 10 times or more in the "
            "domain and are at least 10 times as frequent there as in the source."
        ],
        handles,
    )


@styled
def length_figure(stats: CorpusStats) -> Figure:
    """The lengths of documents, by powers of two: a panel a source.

    Parameters
    ----------
    stats
        From `lawkit.corpus.stats`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ReportError
        Without matplotlib.
    """
    shown = list(stats.sources)[:PANELS]
    figure, axes = panels(len(shown), 1.6, sharex=True, sharey=True)
    low = min(max(stats.sources[name].lengths.edges[0], 1) for name in shown)
    high = max(stats.sources[name].lengths.edges[-1] for name in shown)
    for i, (ax, name) in enumerate(zip(axes, shown, strict=True)):
        about = stats.sources[name]
        edges = np.maximum(about.lengths.edges, 0.5)
        ax.stairs(
            np.array(about.lengths.counts) / about.n_documents,
            edges,
            color=look(i).color,
            fill=True,
            alpha=0.75,
        )
        log_axis(ax, np.array([low, max(high, 2 * low)]), lambda v: f"{v:.0f}" if v < 1000 else size(v))
        head(ax, name, f"{size(about.n_documents)} documents, median {about.lengths.quantiles['p50']:,}")
    return finish(figure, "Lengths of documents", [_not_shown(stats)], [], "tokens", "share of the documents")


def _not_shown(stats: CorpusStats) -> str:
    more = list(stats.sources)[PANELS:]
    return f"Not shown: {listed(more)}." if more else ""
