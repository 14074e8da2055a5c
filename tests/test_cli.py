"""The command line: help, exit statuses, streams, narrow screens."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lawkit.cli import COMMANDS, _output, _types, main
from lawkit.errors import LawkitError


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, its streams in pipes."""
    env = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "LAWKIT_DEBUG"}}
    return subprocess.run(
        [sys.executable, "-m", "lawkit.cli", *arguments],
        capture_output=True,
        text=True,
        env={**env, **environment},
    )


# --- help and start-up ------------------------------------------------------------------


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    def leaves(command: click.Command, path: list[str]):
        if isinstance(command, click.Group):
            for sub in command.list_commands(click.Context(command)):
                child = command.get_command(click.Context(command), sub)
                assert child is not None
                yield from leaves(child, [*path, sub])
        else:
            yield path

    from lawkit.cli import cli

    top = cli.get_command(click.Context(cli), name)
    assert top is not None
    for path in leaves(top, [name]):
        assert main([*path, "--help"]) == 0
        out = capsys.readouterr().out
        assert "Example" in out
        assert f"\n  lawkit {' '.join(path)}" in out.replace("\n    lawkit", "\n  lawkit")


def test_the_command_line_starts_without_numerical_libraries():
    code = (
        "import sys, lawkit.cli\n"
        "assert lawkit.cli.main(['--help']) == 0\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'sympy', 'cvxpy', 'rich', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version(capsys):
    import lawkit

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lawkit {lawkit.__version__}\n"


# --- exit statuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimise"], "No such command 'optimise'"),
        (["laws", "--colour"], "No such option"),
        (["fit", "runs.csv"], "Missing option '-o'"),
        (["fit", "runs.csv", "-o", "f", "--holdout", "1.5"], "'1.5' is not a hold-out"),
        (["fit", "runs.csv", "-o", "f", "--law", "a", "--formula", "b"], "exclude each other"),
        (["optimize-mixture", "f", "--n-params", "7Q", "--n-tokens", "1T"], "'7Q' is not a size"),
        (
            [
                "optimize-mixture",
                "f",
                "--n-params",
                "7B",
                "--n-tokens",
                "1T",
                "--bound",
                "hq<=.1",
                "--bound",
                "hq>=.2",
            ],
            "the bounds on 'hq' leave nothing",
        ),
        (
            [
                "optimize-mixture",
                "f",
                "--n-params",
                "7B",
                "--n-tokens",
                "1T",
                "--target",
                "a=1",
                "--target",
                "a=2",
            ],
            "--target 'a' comes twice",
        ),
    ],
)
def test_usage_errors_exit_2_with_one_message(arguments, says, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_refusal_exits_1_with_one_message(capsys):
    assert main(["laws", "chinchila"]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert "'chinchila'" in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_adds_the_traceback(how, capsys, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("LAWKIT_DEBUG", "1")
    assert main([*(["--debug"] if how == "option" else []), "laws", "chinchila"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")
    monkeypatch.delenv("LAWKIT_DEBUG", raising=False)
    main(["laws", "chinchila"])
    assert "Traceback" not in capsys.readouterr().err


def raises(error: BaseException):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (LawkitError("row 3: no"), 1, "error: row 3: no\n"),
        (OSError(28, "No space left on device", "fit"), 1, "error: fit: No space left on device\n"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
    ],
)
def test_what_happens_inside_becomes_a_status_and_a_message(error, status, message, capsys):
    assert _output.guarded(raises(error), ["fit"]) == status
    shown = capsys.readouterr()
    assert shown.err.startswith(message)
    assert bool(shown.err) == bool(message)
    assert shown.out == ""


def test_a_bug_is_called_a_bug_and_says_how_to_see_more(capsys):
    assert (
        _output.guarded(
            raises(ZeroDivisionError("float\ndivision")), ["lawkit", "--debug", "fit", "my runs.csv"]
        )
        == 1
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "bug in lawkit (ZeroDivisionError: float division)" in err
    assert "lawkit --debug fit 'my runs.csv'" in err


def test_library_warnings_stay_off_the_screen(recwarn):
    import warnings

    with _output.quiet_libraries():
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
    assert len(recwarn) == 0


def test_a_reader_that_leaves_early_is_no_error():
    script = f"{sys.executable} -m lawkit.cli laws --json | head -c 1; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout == "{0\n"
    assert done.stderr == ""


# --- output -----------------------------------------------------------------------------


def test_json_is_one_object_on_stdout_and_nothing_else():
    done = run("laws", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert {"chinchilla", "transfer"} <= {law["name"] for law in json.loads(done.stdout)["laws"]}
    assert json.loads(run("laws", "chinchilla", "--json").stdout)["formula"].startswith("L = ")


def test_a_pipe_gets_no_colours_and_whole_lines():
    done = run("laws")
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    for line in done.stdout.splitlines():
        if line.startswith("chinchilla "):
            assert "n_params, n_tokens" in line
            assert "2203.15556" in line
            break
    else:
        pytest.fail("chinchilla has no line of its own")


def test_a_narrow_screen_gets_lists_instead_of_cut_cells():
    done = run("laws", COLUMNS="40")
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "…" not in done.stdout
    assert "arXiv:2203.15556" in done.stdout


@given(
    rows=st.lists(
        st.tuples(
            st.text("abc xyz", min_size=1, max_size=30).map(lambda s: s.strip() or "a"),
            st.floats(),
            st.integers(),
        ),
        min_size=1,
        max_size=5,
    ),
    width=st.integers(20, 120),
)
def test_tables_keep_every_cell_at_any_width(rows, width):
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        _output.show_table(["name", "value", "count"], rows)
    words = set(stream.getvalue().split())
    for name, value, count in rows:
        assert words.issuperset(name.split())
        assert _output.number(value) in words or _output.number(value) == "-"
        assert str(count) in words


def test_plain_turns_numpy_and_infinities_into_json():
    value = {
        "a": np.float64(math.nan), "b": np.arange(3), "c": (1, np.int64(2)), "d": math.inf,
        "e": np.bool_(True), "f": [np.array([[1.5, -np.inf]])], 5: None,
    }  # fmt: skip
    assert json.loads(json.dumps(_output.plain(value), allow_nan=False)) == {
        "a": None, "b": [0, 1, 2], "c": [1, 2], "d": None, "e": True, "f": [[[1.5, None]]], "5": None,
    }  # fmt: skip
    with pytest.raises(TypeError, match="object"):
        _output.plain(object())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_json_keeps_every_bit(value):
    assert json.loads(json.dumps(_output.plain(np.float64(value)))) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.23456, "1.235"), (12345.6, "12346"), (9999.99, "10000"), (1e21, "1e21"),
        (1.5e-7, "1.5e-7"), (-0.00012345, "-0.0001234"), (math.nan, "-"), (math.inf, "-"), (None, "-"),
    ],
)  # fmt: skip
def test_numbers_for_people(value, text):
    assert _output.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(7e9, "7B"), (1.5e12, "1.5T"), (3e8, "300M"), (27e3, "27k"), (1e21, "1e21"), (12, "12")],
)
def test_sizes_for_people(value, text):
    assert _output.size(value) == text


# --- what options accept ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7e9", 7e9),
        ("7B", 7e9),
        ("300M", 3e8),
        ("2T", 2e12),
        ("1.5b", 1.5e9),
        ("27k", 27e3),
        (".5M", 5e5),
        ("1e+20", 1e20),
    ],
)
def test_sizes(text, value):
    assert _types.parse_size(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["", "B", "-7B", "0", "nan", "inf", "1e999", "7Q", "7 7", "1_000", "0x10", "7BB"]
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size"):
        _types.parse_size(text)


@given(st.floats(1e-3, 1e30))
def test_sizes_read_what_python_writes(value):
    assert _types.parse_size(repr(value)) == value


def test_mixtures():
    assert _types.parse_mixture("a=.7, b=.3") == pytest.approx({"a": 0.7, "b": 0.3})
    assert sum(_types.parse_mixture("a=.333,b=.333,c=.333").values()) == pytest.approx(1, abs=1e-15)
    assert _types.parse_mixture("x=y=1") == {"x=y": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=.7", "sum to 0.7"),
        ("a=.5,a=.5", "comes twice"),
        ("a", "name=value"),
        ("a=1,", "name=value"),
        ("a=-.5,b=1.5", "is not a weight"),
        ("a=nan,b=1", "is not a weight"),
    ],
)
def test_what_is_no_mixture(text, message):
    with pytest.raises(ValueError, match=message):
        _types.parse_mixture(text)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("hq<=.5", ("hq", 0, 0.5)),
        ("hq>=.1", ("hq", 0.1, 1)),
        (".1<=hq<=.5", ("hq", 0.1, 0.5)),
        (".5 >= hq >= .1", ("hq", 0.1, 0.5)),
        ("common crawl<=0", ("common crawl", 0, 0)),
    ],
)
def test_bounds(text, bound):
    assert _types.parse_bound(text) == bound


@pytest.mark.parametrize(
    "text", ["hq", "hq=.5", "hq<.5", "<=.5", ".5<=hq>=.1", "hq<=2", "hq<=x", ".6<=hq<=.5", "a<=b<=c<=.5"]
)
def test_what_is_no_bound(text):
    with pytest.raises(ValueError, match=r"bound|weight|points both ways"):
        _types.parse_bound(text)


def test_bounds_on_one_source_join():
    assert _types.merge_bounds([("a", 0.1, 1), ("b", 0, 0.5), ("a", 0, 0.4)]) == {
        "a": (0.1, 0.4),
        "b": (0, 0.5),
    }


@given(st.text(max_size=12))
def test_parsers_refuse_by_value_error_only(text):
    for parse in (
        _types.parse_size,
        _types.parse_mixture,
        _types.parse_bound,
        _types.parse_amount,
        _types.parse_importance,
        _types.parse_holdout,
    ):
        with contextlib.suppress(ValueError):
            assert parse(text) != ""


def test_an_output_never_replaces_what_was_measured(tmp_path, capsys):
    rng = np.random.default_rng(0)
    table, fit = tmp_path / "runs.csv", tmp_path / "fit"
    lines = ["n_params,n_tokens,weight_a,weight_b,loss_x"]
    for w in np.linspace(0.05, 0.95, 12):
        lines.append(f"{rng.choice([1e8, 3e8]):.0f},1e9,{w},{1 - w},{3 + (w - 0.4) ** 2 / 3}")
    table.write_text("\n".join(lines) + "\n")
    before = table.read_bytes()
    assert main(["fit", str(table), "-o", str(fit), "--law", "transfer-linear", "--holdout", "none"]) == 0
    propose = [
        "propose-runs",
        str(fit),
        "--n-params",
        "7B",
        "--n-tokens",
        "1T",
        "--budget",
        "1e22",
        "-n",
        "1",
    ]
    for arguments in (
        [*propose, "-o", str(table)],
        [*propose, "-o", str(tmp_path / "next.xlsx")],
        ["runs", "import", str(table), "--losses", "loss_{}", "-o", str(table)],
    ):
        assert main(arguments) == 1
        assert "name another file" in (said := capsys.readouterr().err) or "end the name with" in said
    assert table.read_bytes() == before
    assert main([*propose, "-o", str(tmp_path / "next.csv")]) == 0


def test_a_source_may_have_any_name_in_a_bound():
    assert _types.parse_bound("a.b/c=d<=.1") == ("a.b/c=d", 0.0, 0.1)
    assert _types.parse_bound(".1<=a<b<=.5") == ("a<b", 0.1, 0.5)
