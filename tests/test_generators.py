"""Generators: what is asked, what is kept, and folders that go on where they stopped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from fake_server import FakeServer, say
from generating import content, documents, records
from lawkit import _plugins, generators
from lawkit.cli import main
from lawkit.errors import GeneratorError
from lawkit.generators import Answer, Filters, Fleet, Generator, Replay, generate, get_style, read_generated
from lawkit.generators._cut import Cutter
from lawkit.generators.styles import STYLES, OutlineError
from lawkit.io._urls import without_credentials
from needs import need

need("openai", "tokenizers")


@pytest.fixture
def source(tmp_path) -> Path:
    return documents(tmp_path / "documents.jsonl", 30)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def fleet(server) -> Iterator[Fleet]:
    made = Fleet("fake", urls=[server.url], n_params=1000)
    yield made
    made.close()


# ---- the list, the styles, the filters ---------------------------------------------------------------------


def test_each_file_is_one_generator_in_the_list():
    folder = Path(generators.__file__).parent
    files = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    assert files == {module for _, module, _ in generators.BUILTIN} | {"filters", "styles"}
    for name, _, cls in generators.BUILTIN:
        assert generators.get(name).__name__ == cls
        assert all(hasattr(generators.get(name), method) for method in ("answers", "about", "close"))


def test_a_third_partys_generator_is_found(monkeypatch):
    points = [
        EntryPoint(name=name, value=value, group="lawkit.generators")
        for name, value in (("mine", "fake_server:FakeServer"), ("gone", "no_such:Thing"))
    ]
    monkeypatch.setattr(_plugins, "entry_points", lambda group: points)
    assert generators.names() == ["fleet", "server", "in-process", "replay", "gone", "mine"]
    for name, said in (("mine", "no class with a method answers"), ("gone", "cannot be loaded")):
        with pytest.raises(GeneratorError, match=said):
            generators.get(name)
    with pytest.raises(GeneratorError, match="no generator 'x'; there are fleet, server"):
        generators.get("x")


#: A prompt that was used is never edited: answers are named by its version.
PROMPTS = {
    "hq-1": "662efe772343bc8c",
    "qa-1": "62d6b872858d47c1",
    "textbook-1": "4fb218bdfd479d80",
}


@pytest.mark.parametrize("version", sorted(PROMPTS))
def test_prompts_do_not_change_under_their_version(version):
    assert get_style(version).digest.startswith(PROMPTS[version]), "write a new version instead"


def test_every_style_has_its_prompt_and_shows_the_document():
    assert set(PROMPTS) == {path.stem for path in (Path(generators.__file__).parent / "prompts").iterdir()}
    assert set(STYLES.values()) <= set(PROMPTS)
    for name in STYLES:
        steps = get_style(name).first("A text with $text, {braces} and $5.")
        assert all("A text with $text, {braces} and $5." in step.messages[-1]["content"] for step in steps)
    with pytest.raises(GeneratorError, match="no style 'poem'; there are hq, qa, textbook"):
        get_style("poem")


def outline(chapters: list[str], finish: str = "stop", frame: str = "%s") -> Answer:
    text = frame % json.dumps({"chapters": chapters})
    return Answer(text=text, finish=finish, prompt_tokens=1, completion_tokens=99)


def test_a_chapter_is_written_from_the_outline_alone():
    style = get_style("textbook")
    steps = style.first("SECRET of the document")
    assert [step.audience for step in steps] == ["grade-school", "college", "experts", "public"]
    for step in steps:
        assert not step.final
        chapters = style.then(
            step, outline([f"Title {i}:\n why {i}" for i in range(10)], frame="```json\n%s\n```")
        )
        assert [chapter.name for chapter in chapters] == [f"{step.audience}/{i}" for i in range(1, 11)]
        for number, chapter in enumerate(chapters, 1):
            said = chapter.messages[-1]["content"]
            assert "SECRET" not in said
            assert "10. Title 9: why 9" in said
            assert f"Write chapter {number} of it" in said
            assert chapter.final


def test_half_a_character_in_an_outline_can_be_asked_about():
    style = get_style("textbook")
    for chapter in style.then(style.first("x")[0], outline(["half \ud800"] * 10)):
        assert "10. half ?" in chapter.messages[-1]["content"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (outline(["a"] * 10, finish="length"), "cut off after 99 tokens"),
        (outline(["a"] * 9), "has 9 chapters, not 10"),
        (outline(["a"] * 9 + [" "]), "has 9 chapters, not 10"),
        (outline([], frame="{ no json: %s"), "no JSON object"),
        (Answer(text="[1]", finish="stop", prompt_tokens=1, completion_tokens=1), "no JSON object"),
        (
            Answer(text='{"chapters": 3}', finish="stop", prompt_tokens=1, completion_tokens=1),
            "has 0 chapters",
        ),
    ],
)
def test_what_is_no_outline(answer, said):
    style = get_style("textbook")
    with pytest.raises(OutlineError, match=said):
        style.then(style.first("x")[0], answer)


@pytest.mark.parametrize(
    ("tokens", "finish", "text", "why"),
    [
        (50, "stop", "x", None), (49, "stop", "x", "short"), (1650, "stop", "x", None), (1651, "stop", "x", "long"),
        (2048, "length", "x", "cut off"), (700, "length", "x", "context full"), (9, "stop", " \n", "empty"),
    ],
)  # fmt: skip
def test_filters(tokens, finish, text, why):
    answer = Answer(text=text, finish=finish, prompt_tokens=5, completion_tokens=tokens)
    assert Filters().why_dropped(answer, max_tokens=2048, target_tokens=550) == why
    kept = Filters(keep_cut_off=True, min_tokens=0, over=9).why_dropped(
        answer, max_tokens=2048, target_tokens=550
    )
    assert kept == ("empty" if why == "empty" else None)


def test_documents_are_cut_by_tokens(small_corpus):
    import tokenizers

    path = small_corpus / "tokenizer.json"
    counted = tokenizers.Tokenizer.from_file(str(path))
    text = "Ünïcode and plain words, a number 12345 and — dashes. " * 40
    for n in (1, 7, 100, 5000):
        kept, cut = Cutter(n, path)(text)
        assert text.startswith(kept)
        assert cut == (len(kept) < len(text))
        assert len(counted.encode(kept, add_special_tokens=False).ids) <= n
    assert Cutter(5000, path)(text) == (text, False)
    assert Cutter(10)(text) == (text[:40], True)


# ---- folders -----------------------------------------------------------------------------------------------


def test_a_source_is_generated_in_order_once(source, server, fleet, tmp_path):
    assert isinstance(fleet, Generator)
    found = generate(source, tmp_path / "out", generator=fleet, shard=8)
    texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    expected = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    made = records(tmp_path / "out")
    assert [record["document"] for record in made] == expected
    assert {(r["prompt"], r["model"], r["seed"], r["step"]) for r in made} == {("hq-1", "fake", 0, "")}
    assert server.asked == 30
    assert (found.documents, found.texts, found.failed.total()) == (30, 30, 0)
    assert found.tokens == sum(len(record["text"].split()) for record in made) == found.new_tokens
    assert [path.name for path in found.files] == ["00000.jsonl", "00001.jsonl", "00002.jsonl", "00003.jsonl"]
    # Beside each file stands how it was made.
    for file in found.files:
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert about["settings"]["prompt"] == "hq-1"
        assert about["made_by"]["urls"] == [server.url]
        assert about["source"] == [str(source)]
    again = generate(source, tmp_path / "out", generator=fleet, shard=8)
    assert again.new_tokens == 0
    assert server.asked == 30
    assert again.tokens == found.tokens


def test_what_it_costs(source, fleet, tmp_path):
    found = generate(
        source,
        tmp_path / "out",
        generator=fleet,
        price_per_hour=3600,
        price_per_million=1e6,
        filters=Filters(over=1),
    )
    cost = found.cost
    n_tokens = cost["prompt_tokens"] + cost["completion_tokens"]
    assert cost["completion_tokens"] == found.new_tokens
    assert cost["prompt_tokens"] > 30 * 100
    assert cost["flops"] == 2 * 1000 * n_tokens
    assert 0 < cost["seconds"] < 600
    assert cost["money"] == pytest.approx(cost["seconds"] + n_tokens)


def test_more_tokens_add_shards_and_change_none(source, server, fleet, tmp_path):
    one = generate(source, tmp_path / "out", generator=fleet, shard=4, tokens=500)
    assert 500 <= one.tokens < 2500
    before = content(tmp_path / "out")
    asked = server.asked
    two = generate(source, tmp_path / "out", generator=fleet, shard=4, tokens=one.tokens + 1)
    assert two.tokens > one.tokens
    assert asked < server.asked == len(server.answered)
    assert before.items() <= content(tmp_path / "out").items()
    nothing = generate(source, tmp_path / "out", generator=fleet, shard=4, tokens=10)
    assert (nothing.new_tokens, nothing.tokens) == (0, two.tokens)
    most = generate(source, tmp_path / "out", generator=fleet, shard=4, tokens=1e9)
    assert most.documents == 30
    assert "add documents" in most.warnings[0]
    whole = generate(source, tmp_path / "whole", generator=fleet, shard=4)
    assert content(whole.path) == content(most.path)


def test_documents_may_be_added_at_the_end(source, server, fleet, tmp_path):
    generate(source, tmp_path / "out", generator=fleet, shard=8)
    documents(source, 9, first=30)
    found = generate(source, tmp_path / "out", generator=fleet, shard=8)
    assert server.asked == 39
    assert found.documents == 39
    fresh = generate(source, tmp_path / "fresh", generator=fleet, shard=8)
    assert content(fresh.path) == content(found.path)


def test_a_source_that_changed_is_refused(source, fleet, tmp_path):
    generate(source, tmp_path / "out", generator=fleet, shard=8)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for changed in ([lines[1], lines[0], *lines[2:]], lines[:-1], lines[:24]):
        source.write_text("".join(changed), encoding="utf-8")
        with pytest.raises(GeneratorError, match=r"documents of shard [03] are not those"):
            generate(source, tmp_path / "out", generator=fleet, shard=8)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"style": "qa"}, "prompt 'hq-1', not 'qa-1'"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"shard": 9}, "shard 8, not 9"),
        ({"temperature": 1.0}, "temperature 0.7, not 1.0"),
        ({"filters": Filters(min_tokens=5)}, "filters"),
    ],
)
def test_other_settings_are_refused(source, fleet, tmp_path, other, said):
    generate(source, tmp_path / "out", generator=fleet, shard=8, tokens=1)
    with pytest.raises(GeneratorError, match=f"was generated with .*{said}"):
        generate(source, tmp_path / "out", generator=fleet, **{"shard": 8, **other})


def test_copies_are_left_out_and_long_documents_seen_in_part(tmp_path, fleet):
    text = "One and the same words. "
    rows = [text, text * 500, text, "Another text.", "Another text."]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8"
    )
    found = generate(tmp_path / "a.jsonl", tmp_path / "out", generator=fleet, input_tokens=100)
    assert (found.documents, found.repeated, found.cut) == (3, 2, 1)
    assert found.cost["prompt_tokens"] < 3 * 400
    # Copies behind a full shard, the last one among them, are counted as well.
    for shard in (1, 3):
        found = generate(tmp_path / "a.jsonl", tmp_path / f"of{shard}", generator=fleet, shard=shard)
        assert (found.documents, found.repeated) == (3, 2)


def test_a_shard_whose_text_is_gone_is_written_again(source, server, fleet, tmp_path):
    found = generate(source, tmp_path / "out", generator=fleet, shard=8)
    before, asked = content(found.path), server.asked
    (tmp_path / "out/00001.jsonl").unlink()
    assert len(read_generated(found.path).files) == 3
    generate(source, tmp_path / "out", generator=fleet, shard=8)
    assert (content(found.path), server.asked) == (before, asked)
    for broken in ("{}", "3", "{"):
        (tmp_path / "out/00001.json").write_text(broken, encoding="utf-8")
        with pytest.raises(GeneratorError, match=r"00001\.json: cannot be read .* Remove it"):
            generate(source, tmp_path / "out", generator=fleet, shard=8)


def test_another_seed_gives_other_texts(source, fleet, tmp_path):
    one, two = (generate(source, tmp_path / f"{seed}", generator=fleet, seed=seed) for seed in (0, 1))
    assert [r["document"] for r in records(one.path)] == [r["document"] for r in records(two.path)]
    assert all(a["text"] != b["text"] for a, b in zip(records(one.path), records(two.path), strict=True))


def test_textbooks_end_to_end(source, server, fleet, tmp_path):
    """Outline, ten chapters, four audiences; short and long chapters are dropped and counted."""
    words = {0: 20, 1: 1351, 2: 1350, 3: 50}

    def answer(body):
        if body.get("response_format"):
            return say(body)
        return "bee " * words[body["seed"] % 4]

    server.answer = answer
    found = generate(source, tmp_path / "out", generator=fleet, style="textbook", shard=2, tokens=1)
    n = found.documents
    assert found.texts + found.dropped.total() == 40 * n
    assert set(found.dropped) == {"short", "long"}
    assert server.asked == 44 * n
    made = records(found.path)
    assert {len(record["text"].split()) for record in made} == {1350, 50}
    steps = [
        f"{audience}/{i}"
        for audience in ("grade-school", "college", "experts", "public")
        for i in range(1, 11)
    ]
    order = [(r["document"], steps.index(r["step"])) for r in made]
    by_document = list(dict.fromkeys(document for document, _ in order))
    assert order == sorted(order, key=lambda each: (by_document.index(each[0]), each[1]))


def test_outlines_that_are_none_fail_alone(source, server, fleet, tmp_path):
    server.answer = lambda body: (
        "no outline" if body.get("response_format") and body["seed"] % 2 else say(body)
    )
    found = generate(source, tmp_path / "out", generator=fleet, style="textbook", shard=2, tokens=1)
    assert 0 < found.failed["outline"] < 4 * found.documents
    assert found.texts == 10 * (4 * found.documents - found.failed["outline"])
    assert {failure["reason"] for failure in found.failures} == {"outline"}


@pytest.mark.parametrize("style", ["hq", "textbook"])
def test_replay_gives_the_recorded_text_to_the_byte(source, fleet, server, tmp_path, style):
    recorded = generate(source, tmp_path / "out", generator=fleet, style=style, shard=2, tokens=400)
    asked = server.asked
    replay = Replay(recorded.path)
    again = generate(
        source, tmp_path / "again", generator=replay, style=style, shard=2, tokens=recorded.tokens
    )
    assert server.asked == asked
    assert content(again.path) == content(recorded.path)
    assert again.failed.total() == 0
    more = generate(source, tmp_path / "again", generator=replay, style=style, shard=2, tokens=1e9)
    assert more.failed["not recorded"] > 0


def test_a_request_that_a_generator_leaves_out_fails_alone(source, tmp_path):
    class Forgetful:
        model, shards_at_once = "m", 1
        n_params: float | None = None

        def answers(self, requests):
            for place in range(len(requests) - 1):
                yield place, Answer(text="word " * 60, finish="stop", prompt_tokens=1, completion_tokens=60)

        def about(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            pass

    found = generate(source, tmp_path / "out", generator=Forgetful(), shard=10)
    assert (found.texts, dict(found.failed)) == (27, {"no answer": 3})


def test_answers_are_replayed_with_the_settings_they_were_recorded_with(source, fleet, tmp_path):
    recorded = generate(source, tmp_path / "out", generator=fleet, tokens=1, temperature=1.0, max_tokens=70)
    replay = Replay(recorded.path)
    others: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 70}, "temperature 1.0, not 0.7"),
        ({"temperature": 1.0}, "max_tokens 70, not 2048"),
        ({"temperature": 1.0, "max_tokens": 70, "seed": 1}, "seed 0, not 1"),
        ({"temperature": 1.0, "max_tokens": 70, "style": "qa"}, "prompt 'hq-1', not 'qa-1'"),
    ]
    for other, said in others:
        with pytest.raises(GeneratorError, match=f"were recorded with {said}"):
            generate(source, tmp_path / "again", generator=replay, **other)
    kept = Filters(keep_cut_off=True)
    again = generate(
        source, tmp_path / "again", generator=replay, temperature=1.0, max_tokens=70, filters=kept
    )
    assert again.texts == recorded.texts + recorded.dropped["cut off"]


def test_what_was_generated_is_a_source_like_any_other(source, fleet, tmp_path):
    from lawkit.corpus import build

    found = generate(source, tmp_path / "out", generator=fleet, shard=8)
    corpus = build({"web": source, "hq": [str(f) for f in found.files]}, tmp_path / "corpora", vocab_size=300)
    assert corpus.manifest["sources"]["hq"]["documents"] == 30


def test_one_process_at_a_time(source, fleet, tmp_path):
    from lawkit.generators._folder import alone

    generate(source, tmp_path / "out", generator=fleet, tokens=1)
    with alone(tmp_path / "out"), pytest.raises(GeneratorError, match="another process generates into it"):
        generate(source, tmp_path / "out", generator=fleet)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(GeneratorError, match="holds no generated text"):
        read_generated(tmp_path)
    (tmp_path / "generated.json").write_text("{", encoding="utf-8")
    with pytest.raises(GeneratorError, match="cannot be read"):
        Replay(tmp_path)


def test_impossible_values(source, fleet, tmp_path):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"shard": 0}, "shard is 0"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"input_tokens": 0}, "input_tokens is 0"),
        ({"style": "poem"}, "no style 'poem'"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"price_per_hour": float("nan")}, "a price is nan"),
        ({"price_per_million": -3.0}, "a price is -3.0"),
    ]
    for options, said in wrong:
        with pytest.raises(GeneratorError, match=said):
            generate(source, tmp_path / "out", generator=fleet, **options)
    with pytest.raises(GeneratorError, match="min_tokens is -1"):
        Filters(min_tokens=-1)
    with pytest.raises(GeneratorError, match="over inf"):
        Filters(over=float("inf"))
    for url in ("node7:8000", "ftp://x/v1", "http://", "http://[::1", "http://h:99999/v1"):
        with pytest.raises(GeneratorError, match="is no server's URL"):
            Fleet("fake", urls=[url])
    with pytest.raises(GeneratorError, match="no servers"):
        Fleet("fake", urls=[])


def test_a_servers_password_is_sent_and_neither_written_nor_said(source, tmp_path):
    out = tmp_path / "out"
    with FakeServer(key=base64.b64encode(b"me:sesame").decode()) as server:
        url = server.url.replace("//", "//me:sesame@")
        fleet = Fleet("fake", urls=[url])
        generate(source, out, generator=fleet)
        fleet.close()
    about = json.loads((out / "00000.json").read_text())
    assert about["made_by"]["urls"] == [server.url]
    assert not [path for path in out.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    for wrong in (url.replace("sesame", "ses/ame"), "me:sesame@x"):
        with pytest.raises(GeneratorError, match="is no server's URL") as refused:
            Fleet("fake", urls=[wrong])
        assert "me:" not in str(refused.value)
    fleet = Fleet("fake", urls=[url], patience_s=0.1)
    with pytest.raises(GeneratorError, match="no server could be reached") as refused:
        generate(source, tmp_path / "other", generator=fleet)
    assert "me:" not in str(refused.value)
    fleet.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:secret@host:8000/v1", "https://host:8000/v1"),
        ("https://me:secret@h/v1?next=http://x", "https://h/v1?next=http://x"),
        ("https://h:8000/v1/@me", "https://h:8000/v1/@me"),
        ("http://me:se/cret@h/v1", "http://h/v1"),
        ("me:secret@h", "h"),
        ("s3://bucket/folder", "s3://bucket/folder"),
    ],
)
def test_urls_are_told_without_what_is_secret(url, said):
    assert without_credentials(url) == said


# ---- the command -------------------------------------------------------------------------------------------


def test_command(source, server, tmp_path, capsys):
    arguments = ["generate", str(source), "--model", "fake", "--url", server.url, "-o", str(tmp_path / "out")]
    assert main([*arguments, "--style", "qa", "--shard", "10", "--n-params", "1k", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["texts"] == 30
    assert printed["settings"]["prompt"] == "qa-1"
    assert printed["cost"]["flops"] > 0
    assert main([*arguments, "--style", "qa", "--shard", "10"]) == 0
    said = capsys.readouterr()
    assert "30 of 30 documents" in said.out
    assert "nothing" in said.out
    again = [
        "generate",
        str(source),
        "--generator",
        "replay",
        "--recorded",
        str(tmp_path / "out"),
        "--style",
        "qa",
    ]
    assert main([*again, "-o", str(tmp_path / "again"), "--shard", "10"]) == 0
    assert content(tmp_path / "again") == content(tmp_path / "out")
    assert main([*arguments, "--style", "hq"]) == 1
    assert "was generated with prompt 'qa-1', not 'hq-1'" in capsys.readouterr().err
    for wrong in (
        ["generate", str(source), "-o", str(tmp_path / "x")],
        [*arguments, "--option", "x"],
        [*arguments, "--option", "nonsense=1"],
        [*arguments, "--option", "retries=2.5"],
        [*arguments, "--option", "patience-s=long"],
        [*arguments, "--option", "stopped=1"],
        [*arguments, "--option", "urls=[5]"],
        ["generate", str(source), "--generator", "replay", "-o", str(tmp_path / "x")],
        [*arguments, "--recorded", str(tmp_path / "out")],
        [*arguments, "--generator", "server"],
        [*again, "--timeout", "3", "-o", str(tmp_path / "x")],
    ):
        assert main(wrong) == 2
