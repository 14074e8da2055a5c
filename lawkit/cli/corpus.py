"""``lawkit corpus``: text becomes the tokens that backends train on, and is described."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output
from lawkit.cli._corpus_stats import stats_
from lawkit.cli._options import files_by_name, reading_options
from lawkit.cli._types import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from lawkit.corpus import Progress

_WORDS = {
    "hash": "hashing files",
    "wait": "waiting for another build",
    "scan": "reading",
    "tokenizer": "training the tokenizer",
    "encode": "encoding",
    "reuse": "it is there",
}


@click.group("corpus")
def command() -> None:
    """Build a corpus, token ids on disk that all runs share, and see what is in it.

    A corpus has one or more sources, each with a training side and a held-out side on
    which models are evaluated. It is a folder named by the content of what it was made
    from: the same files and options give the same folder.
    """


command.add_command(stats_)


@command.command("build")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE=FILES...")
@click.option("-o", "--out", "out", required=True, metavar="DIR", help="The folder of all corpora.")
@click.option(
    "--tokenizer", metavar="FILE", help="A tokenizer.json.  [default: train a byte-level BPE on the sources]"
)
@click.option(
    "--vocab-size", type=SIZE, default=4096, show_default=True, help="Tokens of the BPE that is trained."
)
@click.option(
    "--holdout", type=float, default=0.02, show_default=True, help="Fraction of documents held out."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed holds out others.")
@reading_options
@click.option("--bos", metavar="TOKEN", help="The tokenizer's token that begins a document.")
@click.option("--eos", metavar="TOKEN", help="The tokenizer's token that ends a document.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build_(
    sources: tuple[str, ...],
    out: str,
    vocab_size: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn text files into a corpus.

    Each SOURCE=FILES names a source and its files, or a pattern for them in quotes; a
    name may come several times. Files are text, .jsonl or .parquet; text and .jsonl also
    as .gz or .zst. A line of jsonl and a row of parquet is a document. A text file is
    one, or several with --document-separator; a text of more than 1 MiB, and a source's
    only file, is cut at paragraphs into documents of at most 16 KiB.

    Documents that repeat a held-out one are left out of training. An interrupted build
    goes on where it was when the same command is given again.

    \b
    Examples:
      lawkit corpus build 'code=src/**/*.py' wiki=wiki.jsonl.gz -o corpora
      lawkit corpus build web=web.parquet --text-column content \\
          --tokenizer llama3/tokenizer.json --holdout .01 -o corpora
      lawkit corpus build glosses=glosses.txt --document-separator '\\n\\n' -o corpora
    """
    from lawkit.corpus import build

    started, worked = time.perf_counter(), time.process_time()
    with _progress(quiet=as_json) as tell:
        stages: set[str] = set()

        def told(progress: Progress) -> None:
            stages.add(progress.stage)
            tell(progress)

        corpus = build(
            files_by_name(sources),
            out,
            vocab_size=int(vocab_size),
            progress=told,
            **options,
        )
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    reused = "reuse" in stages
    about = corpus.manifest["sources"]
    n_bytes = sum(source["bytes"] for source in about.values())
    rate = None if reused else n_bytes / 1e6 / seconds
    if as_json:
        _output.emit_json(
            {
                "path": corpus.path,
                "digest": corpus.digest,
                "vocab_size": corpus.vocab_size,
                "tokenizer": corpus.tokenizer_path,
                "reused": reused,
                "n_bytes": n_bytes,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "mb_per_s": rate,
                "sources": {
                    name: {k: v for k, v in source.items() if k != "files"} for name, source in about.items()
                },
                "warnings": corpus.warnings,
            }
        )
        return
    _output.show_warnings(corpus.warnings)
    _output.show_table(
        ["source", "documents", "MB", "tokens", "held-out tokens", "bytes a token", "near-duplicates"],
        [
            [
                name,
                source["documents"],
                f"{source['bytes'] / 1e6:.1f}",
                _output.size(source["train"]["tokens"]),
                _output.size(source["heldout"]["tokens"]),
                f"{source['train']['bytes'] / source['train']['tokens']:.2f}",
                source["removed"]["near_duplicates"] or None,
            ]
            for name, source in about.items()
        ],
    )
    _output.say(str(corpus.path))
    if rate is None:
        _output.note("it was there already: nothing was built")
    else:
        _output.note(
            f"{n_bytes / 1e6:.0f} MB of text in {seconds:.0f} s ({cpu:.0f} s of CPU): {rate:.1f} MB/s"
        )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal; in a pipe say only that another build is waited for."""
    if quiet or not sys.stderr.isatty():
        told: set[str] = set()

        def say(progress: Progress) -> None:
            if progress.stage == "wait" and "wait" not in told:
                told.add("wait")
                click.echo("another process builds this corpus: waiting for it", err=True)

        yield say
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=_output.console(stderr=True), transient=True) as bar:
        task, stage = bar.add_task("starting", total=None), ""

        def show(progress: Progress) -> None:
            nonlocal task, stage
            if progress.stage != stage:
                # A new task: the speed of one stage says nothing about that of the next.
                bar.remove_task(task)
                stage, task = progress.stage, bar.add_task("", total=None)
            name = f" {progress.source}" if progress.source else ""
            bar.update(
                task,
                completed=progress.n_done,
                total=progress.n_total,
                description=f"{_WORDS[progress.stage]}{name}",
            )

        yield show
