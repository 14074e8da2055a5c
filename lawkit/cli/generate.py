"""``lawkit generate``: documents become synthetic text."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit._options import check_options, declared, fits
from lawkit.cli import _output
from lawkit.cli._options import reading_options
from lawkit.cli._types import SIZE
from lawkit.errors import LawkitError

if TYPE_CHECKING:
    from lawkit.generators import Generated, Generator, Progress

#: Options that a generator of ours would pass on to vLLM, or not look at.
_UNUSED = {
    "fleet": ("recorded",),
    "server": ("recorded", "urls"),
    "in-process": ("recorded", "urls", "python", "concurrency", "timeout"),
    "replay": ("model", "urls", "python", "concurrency", "timeout", "extra"),
}
#: Seconds between two lines of progress where there is no terminal.
_EVERY_S = 60.0


@click.command("generate")
@click.argument("source", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Its folder."
)
@click.option(
    "--style", default="hq", show_default=True, help="hq, qa, textbook, or the version of a prompt (hq-1)."
)
@click.option("--model", metavar="M", help="A model's name, or its folder.")
@click.option(
    "--url", "urls", multiple=True, metavar="URL", help="An OpenAI-compatible server; may be repeated."
)
@click.option(
    "--generator",
    "name",
    metavar="NAME",
    help="fleet, server, in-process, replay, or an installed one.  [default: fleet with --url, else server]",
)
@click.option("--recorded", type=click.Path(path_type=Path), metavar="DIR", help="Answers for replay.")
@click.option(
    "--python", metavar="FILE", help="Interpreter that has vLLM, for server.  [env: LAWKIT_VLLM_PYTHON]"
)
@click.option(
    "--option", "extra", multiple=True, metavar="KEY=VALUE", help="An option of vLLM or of the generator."
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), help="Requests at a time to each server.  [default: 64]"
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for one answer.  [default: 600]"
)
@click.option("--n-params", type=SIZE, help="The model's non-embedding parameters, to count flops.")
@click.option("--tokens", type=SIZE, help="Stop when so many tokens are kept.  [default: use all documents]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another gives other texts."
)
@click.option("--temperature", type=float, default=0.7, show_default=True, help="Of the model's draws.")
@click.option("--top-p", type=float, default=0.95, show_default=True, help="Of the model's draws.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Cut answers off here.  [default: the style's own]"
)
@click.option(
    "--input-tokens",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Show the model so much of a document.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A tokenizer.json that counts them.  [default: the model folder's own, else 4 characters a token]",
)
@click.option(
    "--min-tokens",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Drop shorter answers.",
)
@click.option(
    "--over",
    type=click.FloatRange(min=1),
    default=3.0,
    show_default=True,
    help="Drop answers of so many times the style's usual length.",
)
@click.option("--keep-cut-off", is_flag=True, help="Keep answers that were cut off.")
@click.option(
    "--shard",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Documents in one output file.",
)
@click.option("--retry-failed", is_flag=True, help="Ask once more what failed before.")
@click.option("--price-per-hour", type=float, metavar="MONEY", help="Of all servers together.")
@click.option("--price-per-million", type=float, metavar="MONEY", help="Of tokens, prompts included.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: tuple[str, ...],
    out: Path,
    name: str | None,
    as_json: bool,
    min_tokens: int,
    over: float,
    keep_cut_off: bool,
    tokenizer: Path | None,
    **options: Any,
) -> None:
    """Turn documents into synthetic text with a language model.

    FILES are the documents, or a pattern for them in quotes: text, .jsonl or .parquet,
    as lawkit corpus build reads them. hq rewrites each one as clear prose, qa as
    questions with answers; textbook plans a book of ten chapters on it for four kinds
    of readers, and writes each chapter from the plan alone.

    The model is asked at the servers of --url, or at a vLLM server that is started here
    and stopped afterwards. The folder then holds the texts in *.jsonl, a source like any
    other, and beside each file a record of how it was made. Interrupted or killed, the
    same command goes on where it was; with more --tokens it adds what is missing.

    \b
    Examples:
      lawkit generate 'web/*.jsonl.gz' --model mistral-7b --style qa \\
          --url http://node1:8000/v1 --url http://node2:8000/v1 --n-params 7B -o qa
      lawkit generate docs.jsonl --model ./SmolLM2-135M-Instruct --style textbook \\
          --tokens 10M -o textbook
      lawkit generate docs.jsonl --generator replay --recorded qa --style qa -o again
    """
    from lawkit.errors import GeneratorError
    from lawkit.generators import Filters, generate, read_generated

    generator_options, options = _split(options)
    if tokenizer is None and generator_options["model"]:
        beside = Path(generator_options["model"]) / "tokenizer.json"
        tokenizer = beside if beside.is_file() else None
    generator = _generator(name, out, generator_options)
    try:
        with _progress(options["tokens"], quiet=as_json) as tell:
            found = generate(
                source,
                out,
                generator=generator,
                tokenizer=tokenizer,
                filters=Filters(min_tokens=min_tokens, over=over, keep_cut_off=keep_cut_off),
                progress=tell,
                **options,
            )
    except GeneratorError:
        with suppress(GeneratorError):  # the folder itself may be what is wrong
            _show_failures(read_generated(out))
        raise
    finally:
        generator.close()
    if as_json:
        _output.emit_json(found.to_dict())
        return
    _output.show_warnings(found.warnings)
    _show(found)
    _show_failures(found)


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    ours = ("model", "urls", "recorded", "python", "extra", "concurrency", "timeout", "n_params")
    return {k: options[k] for k in ours}, {k: v for k, v in options.items() if k not in ours}


def _generator(name: str | None, out: Path, options: dict[str, Any]) -> Generator:
    """Make the generator that the options describe; each takes those that are its own."""
    from lawkit.generators import get

    name = name or ("fleet" if options["urls"] else "server")
    kind = get(name)
    for option in _UNUSED.get(name, ()):
        if options[option]:
            flag = {"urls": "url", "extra": "option"}.get(option, option)
            raise click.UsageError(f"--{flag} is nothing to --generator {name}: leave it out")
    if name == "replay":
        if options["recorded"] is None:
            raise click.UsageError("--generator replay needs --recorded, the folder of an earlier run")
        return kind(options["recorded"], n_params=options["n_params"])
    if not options["model"]:
        raise click.UsageError("--model is missing: the model's name, or its folder")
    given = {
        "urls": list(options["urls"]) or None,
        "python": options["python"],
        "concurrency": options["concurrency"],
        "timeout_s": options["timeout"],
        "n_params": options["n_params"],
    }
    given = {key: value for key, value in given.items() if value is not None}
    if name == "server":
        out.mkdir(parents=True, exist_ok=True)
        given["log"] = out / "server.log"
    try:
        return kind(options["model"], **{**given, **_extra(kind, options["extra"])})
    except TypeError as error:
        raise click.UsageError(
            f"generator {name!r} cannot be made with {', '.join(given)}: {error}"
        ) from None


def _extra(kind: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The values of --option by name: JSON where that is of the type that the generator declares, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.UsageError(
                f"--option {text!r} is not of the form KEY=VALUE, such as max_model_len=4096"
            )
        key = key.replace("-", "_")
        found[key] = value
        with suppress(ValueError):
            read = json.loads(value)
            found[key] = read if fits(read, declared(kind, key)) else value
    try:
        check_options(kind, found, first=1)
    except LawkitError as error:
        raise click.UsageError(f"--option {error}") from None
    return found


def _show(found: Generated) -> None:
    cost = found.cost
    _output.show_pairs(
        [
            (
                "texts",
                f"{found.texts:,} of {found.documents:,} documents, {_output.size(found.tokens)} tokens",
            ),
            ("left out", f"{found.repeated:,} repeated documents" if found.repeated else None),
            ("seen in part", f"{found.cut:,} documents" if found.cut else None),
            ("dropped", ", ".join(f"{n:,} {why}" for why, n in found.dropped.most_common()) or "none"),
            ("generated now", f"{_output.size(found.new_tokens)} tokens" if found.new_tokens else "nothing"),
            (
                "cost of all",
                f"{_output.size(cost['prompt_tokens'] or 0)} prompt and "
                f"{_output.size(cost['completion_tokens'] or 0)} answer tokens, {cost['seconds'] or 0:.0f} s"
                + (f", {_output.number(cost['flops'], 3)} flops" if cost["flops"] is not None else "")
                + (f", {_output.number(cost['money'])} money" if cost["money"] is not None else ""),
            ),
            ("written to", str(found.path)),
        ]
    )


def _show_failures(found: Generated) -> None:
    """On standard error: what has no answer, and why; neither prompts nor answers are in it."""
    if not found.failed:
        return
    out = _output.console(stderr=True)
    out.print("failed: " + ", ".join(f"{n:,} {why}" for why, n in found.failed.most_common()))
    for failure in found.failures:
        step = f" {failure['step']}" if failure["step"] else ""
        out.print(f"  {failure['document'][:12]}{step}  {failure['reason']}: {failure['message']}")
    if found.failed.total() > len(found.failures):
        out.print(f"  ... all of them are in {found.path}/*.json")


@contextmanager
def _progress(tokens: float | None, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal; elsewhere a line a minute."""
    if quiet or not sys.stderr.isatty():
        told = time.monotonic()

        def say(progress: Progress) -> None:
            nonlocal told
            if not quiet and time.monotonic() > told + _EVERY_S:
                told = time.monotonic()
                _output.note(_said(progress))

        yield say
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=_output.console(stderr=True), transient=True) as bar:
        task, began = bar.add_task("starting", total=tokens), time.monotonic()

        def show(progress: Progress) -> None:
            rate = progress.new_tokens / max(time.monotonic() - began, 1e-3)
            bar.update(
                task,
                completed=progress.kept_tokens,
                description=f"{_said(progress)}, {_output.size(rate)} tokens/s",
            )

        yield show


def _said(progress: Progress) -> str:
    failed = f", {progress.failures:,} failed" if progress.failures else ""
    return (
        f"{progress.documents:,} documents, {progress.answers:,} answers{failed}, "
        f"{_output.size(progress.kept_tokens)} tokens kept"
    )
