"""The runs table: every cell is read exactly, everything impossible is refused and named."""

# Columns that a table may lack are None to a type checker; here every table has them.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false

from __future__ import annotations

import csv
import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lawkit.errors import RunsError
from lawkit.io.summary import summarize_runs
from lawkit.runs import Runs, check_runs, read_runs

GOOD = """run_id,seed,n_params,n_tokens,weight_web,weight_hq,loss_wiki,loss_code
a,0,1e8,2e9,1,0,3.5,2.25
b,0,1e8,4e9,0.5,0.5,3.25,
c,1,4e8,2e9,0.25,0.75,3.0,2.0
d,1,4e8,8e9,0,1,2.75,1.75
"""


def write(folder, text, name="runs.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder, text, name="runs.csv", **options):
    with pytest.raises(RunsError) as caught:
        read_runs(write(folder, text, name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(row, column, value):
    """GOOD with one cell replaced."""
    lines = [line.split(",") for line in GOOD.strip().split("\n")]
    lines[row][lines[0].index(column)] = value
    return "\n".join(",".join(line) for line in lines) + "\n"


# --- reading ------------------------------------------------------------------------------


def test_reads_every_column(tmp_path):
    runs = read_runs(write(tmp_path, GOOD))
    assert (runs.sources, runs.domains) == (("web", "hq"), ("wiki", "code"))
    assert runs.n_params.tolist() == [1e8, 1e8, 4e8, 4e8]
    assert runs.weights.tolist() == [[1, 0], [0.5, 0.5], [0.25, 0.75], [0, 1]]
    assert math.isnan(runs.losses[1, 1])
    assert runs.losses[2].tolist() == [3.0, 2.0]
    assert runs.run_id.tolist() == ["a", "b", "c", "d"]
    assert runs.seed.tolist() == [0, 0, 1, 1]
    assert runs.rows.tolist() == [1, 2, 3, 4]
    assert runs.scale.shape == (4, 2)
    assert runs.warnings == ()
    with pytest.raises(ValueError, match="read-only"):
        runs.losses[0, 0] = 1.0


def test_optional_columns(tmp_path):
    text = (
        "n_params,n_tokens,flops,weight_web,weight_hq,unique_hq,loss_wiki,loss_wiki_se,is_final\n"
        "70M,1.5B,6.3e17,1,0,,3.5,0.01,true\n7e7,3B,1.26e18,.5,.5,2e9,3.4,,False\n"
    )
    runs = read_runs(write(tmp_path, text))
    assert runs.n_params.tolist() == [7e7, 7e7]
    assert runs.n_tokens.tolist() == [1.5e9, 3e9]
    assert np.isnan(runs.unique[:, 0]).all()
    assert runs.unique[1, 1] == 2e9
    assert runs.domains == ("wiki",)
    assert runs.losses_se[0, 0] == 0.01
    assert math.isnan(runs.losses_se[1, 0])
    assert runs.is_final.tolist() == [True, False]
    assert runs.flops.tolist() == [6.3e17, 1.26e18]


def test_scale_may_be_absent(tmp_path):
    runs = read_runs(write(tmp_path, "weight_a,weight_b,loss_x\n0.2,0.8,3\n0.5,0.5,2.5\n"))
    assert runs.n_params is None
    assert runs.scale is None
    assert runs.warnings == ()
    assert [finding.code for finding in check_runs(runs)] == ["one-scale"]


def test_tables_without_losses_can_be_asked_for(tmp_path):
    text = "n_params,n_tokens,weight_a\n1e8,2e9,1\n1e9,2e10,1\n"
    assert "no loss_<domain> column" in refused(tmp_path, text)
    runs = read_runs(write(tmp_path, text), require_losses=False)
    assert runs.losses.shape == (2, 0)
    assert len(runs.select([1])) == 1


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".parquet", ".jsonl", ".ndjson"])
def test_formats_agree(tmp_path, suffix):
    runs = read_runs(write(tmp_path, GOOD))
    runs.write(tmp_path / f"again{suffix}")
    again = read_runs(tmp_path / f"again{suffix}")
    assert again.columns() == runs.columns()
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_frames_and_runs(tmp_path):
    runs = read_runs(write(tmp_path, GOOD))
    assert read_runs(runs) is runs
    again = read_runs(runs.to_frame())
    assert again.columns() == runs.columns()
    assert again.path is None


def test_standard_input(tmp_path, monkeypatch):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert read_runs("-").path == "standard input"


def test_numbers_are_read_exactly(tmp_path):
    # The usual fast parsers miss these by one unit in the last place.
    texts = [
        "2.3491092823501094e0",
        "0.1000000000000000055511151231257827",
        "3.0000000000000004",
        "1.7976931348623157",
    ]
    rows = "".join(f"{i + 1}e9,{text}\n" for i, text in enumerate(texts))
    runs = read_runs(write(tmp_path, "n_tokens,loss_x\n" + rows))
    assert runs.losses[:, 0].tolist() == [float(text) for text in texts]


def test_weights_are_normalised_within_tolerance(tmp_path):
    runs = read_runs(write(tmp_path, "weight_a,weight_b,loss_x\n0.3333,0.6666,3\n0.5,0.5,2\n"))
    assert runs.weights.sum(axis=1) == pytest.approx([1, 1], abs=1e-15)
    assert runs.weights[1].tolist() == [0.5, 0.5]


def test_bom_blank_lines_and_index_column(tmp_path):
    text = "\ufeff,n_tokens,loss_x\n0,1e9,3.0\n\n1,2e9,2.5\n"
    runs = read_runs(write(tmp_path, text))
    assert runs.n_tokens.tolist() == [1e9, 2e9]


def test_select_and_with_domains(tmp_path):
    runs = read_runs(write(tmp_path, GOOD))
    late = runs.select(runs.n_tokens > 2e9)
    assert late.rows.tolist() == [2, 4]
    assert late.run_id.tolist() == ["b", "d"]
    assert runs.select([3, 0]).losses[:, 0].tolist() == [2.75, 3.5]
    assert len(runs.select([])) == 0
    code = runs.with_domains(["code"])
    assert (code.domains, code.losses.shape) == (("code",), (4, 1))
    with pytest.raises(RunsError, match=r"no domain 'cod' .* Did you mean 'code'"):
        runs.with_domains(["cod"])


def test_runs_checks_its_shapes():
    with pytest.raises(RunsError, match=r"Runs.weights has shape \(2, 1\) where \(2, 2\)"):
        Runs(sources=("a", "b"), domains=("x",), n_params=None, n_tokens=None,
             weights=np.ones((2, 1)), losses=np.ones((2, 1)))  # fmt: skip


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        (2, "n_params", "-1e8", ["n_params must be a positive", "row 2", "'-1e8'"]),
        (2, "n_params", "0", ["n_params must be a positive", "row 2", "'0'"]),
        (3, "n_params", "", ["n_params must be a positive", "row 3"]),
        (1, "n_tokens", "inf", ["n_tokens must be a positive", "row 1", "'inf'"]),
        (4, "n_tokens", "many", ["column 'n_tokens' must hold numbers", "row 4", "'many'"]),
        (1, "loss_wiki", "0", ["a loss must be positive", "row 1, column 'loss_wiki': '0'"]),
        (1, "loss_wiki", "-3.5", ["a loss must be positive", "row 1", "'-3.5'"]),
        (1, "loss_code", "Infinity", ["a loss must be positive", "row 1, column 'loss_code': 'Infinity'"]),
        (2, "loss_wiki", "1e999", ["a loss must be positive", "row 2", "'1e999'"]),
        (2, "loss_wiki", "3;5", ["column 'loss_wiki' must hold numbers", "row 2", "'3;5'", "decimal point"]),
        (2, "loss_wiki", "1_000", ["must hold numbers", "'1_000'"]),
        (2, "loss_wiki", "3.5B", ["must hold numbers", "'3.5B'"]),
        (2, "weight_web", "-0.5", ["a weight must be", "row 2, column 'weight_web': '-0.5'"]),
        (2, "weight_web", "", ["a weight must be", "row 2", "0 must be written out"]),
        (2, "weight_web", "nan", ["a weight must be", "row 2"]),
        (2, "weight_web", "0.6", ["must sum to 1 within 0.001", "row 2: 1.1"]),
        (2, "seed", "1.5", ["column 'seed' must hold whole numbers", "'1.5'"]),
        (2, "seed", "-1", ["column 'seed' must hold whole numbers", "'-1'"]),
    ],
)  # fmt: skip
def test_a_bad_cell_is_named(tmp_path, row, column, value, expected):
    message = refused(tmp_path, changed(row, column, value))
    for part in [str(tmp_path / "runs.csv"), *expected]:
        assert part in message


def test_many_bad_cells_are_counted(tmp_path):
    text = "n_tokens,loss_x\n" + "".join(f"{i}e9,0\n" for i in range(1, 13))
    message = refused(tmp_path, text)
    assert "row 5," in message
    assert "row 6," not in message
    assert "and 7 more such cells" in message


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("runs.csv", "", "the file is empty"),
        ("runs.csv", "n_tokens,loss_x\n", "a header but no rows"),
        ("runs.jsonl", "\n\n", "the file is empty"),
        ("runs.csv", "n_tokens,loss_x,loss_x\n1e9,3,3\n", "column 'loss_x' occurs twice (columns 2 and 3)"),
        ("runs.csv", "n_tokens,loss_x, loss_x\n1e9,3,3\n", "column 'loss_x' occurs twice"),
        ("runs.jsonl", '{"n_tokens": 1e9, "loss_x": 3, "loss_x": 2}\n', "names 'loss_x' twice"),
        ("runs.csv", "loss_x\n3\n", "no n_params, n_tokens or weight_<source> column"),
        ("runs.csv", "n_tokens,losses_x\n1e9,3\n", "'losses_x' (did you mean 'loss_x'?)"),
        ("runs.csv", "n_tokens,x_loss\n1e9,3\n", "'x_loss' (did you mean 'loss_x'?)"),
        ("runs.csv", "tokens,loss_x\n1e9,3\n", "'tokens' (did you mean 'n_tokens'?)"),
        ("runs.csv", "weight_a,weigth_b,loss_x\n.5,.5,3\n", "'weigth_b' (did you mean 'weight_b'?)"),
        ("runs.csv", "n_tokens,loss_x_se\n1e9,3\n", "no column 'loss_x' beside it"),
        ("runs.csv", "n_tokens,loss_x\n1e9,\n2e9,nan\n", "every loss is missing"),
        ("runs.csv", "n_tokens,loss_x\n1e9,3\n2e9\n", "row 2 (line 3) has 1 cells where the header has 2"),
        ("runs.csv", 'n_tokens,loss_x\n1e9,"3\n', "is not CSV"),
        ("runs.csv", "n_tokens;loss_x\n1e9;3,5\n", "not separated by commas"),
        ("runs.csv", "weight_a,weight_b,loss_x\n40,60,3\n50,50,2\n", "look like percentages"),
        ("runs.csv", "weight_a,weight_b,loss_x\n.5,.49,3\n.5,.5,2\n", "look rounded"),
        ("runs.csv", "weight_a,weight_b,loss_x\n4e9,6e9,3\n", "look like token counts"),
        ("runs.jsonl", '{"n_tokens": 1e9, "loss_x": 3\n', "row 1 (line 1) is not JSON"),
        ("runs.jsonl", "[1, 2]\n", "is a list, not an object"),
        ("runs.jsonl", '{"n_tokens": 1e9, "loss_x": [3]}\n', "must hold numbers"),
        ("runs.jsonl", '{"n_tokens": 1e9, "loss_x": true}\n', "must hold numbers"),
        ("runs.jsonl", '{"n_tokens": 1e9, "loss_x": -Infinity}\n', "a loss must be positive"),
        ("runs.jsonl", '{"n_tokens": 1' + "0" * 400 + ', "loss_x": 3}\n', "n_tokens must be a positive"),
        ("runs.csv", "n_tokens,loss_x,is_final\n1e9,3,perhaps\n", "must hold true or false"),
        ("runs.txt", "n_tokens,loss_x\n1e9,3\n", "must be one of .csv"),
        ("runs.parquet", "no parquet", "is not a readable Parquet file"),
        ("runs.csv.gz", "no gzip", "cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused(tmp_path, name, text, expected):
    message = refused(tmp_path, text, name)
    assert expected in message
    assert message.startswith(str(tmp_path / name))


def test_unreadable_files(tmp_path):
    write(tmp_path, GOOD, "runs.csv")
    with pytest.raises(RunsError, match=r"no such file.*'runs.csv' stands in the same folder"):
        read_runs(tmp_path / "rums.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RunsError, match="cannot be read"):
        read_runs(tmp_path / "folder.csv")
    (tmp_path / "latin.csv").write_bytes(b"n_tokens,loss_\xe9\n1e9,3\n")
    with pytest.raises(RunsError, match="not UTF-8"):
        read_runs(tmp_path / "latin.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:40])
    with pytest.raises(RunsError, match="cannot be read"):
        read_runs(tmp_path / "cut.csv.gz")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(RunsError, match="is not JSON"):
        read_runs(tmp_path / "deep.jsonl")
    with pytest.raises(RunsError, match="must be a path or a pandas DataFrame, not list"):
        read_runs([1, 2])  # pyright: ignore[reportArgumentType]


def test_duplicate_columns_of_a_frame_and_of_parquet(tmp_path):
    frame = pd.DataFrame([[1e9, 3.0, 3.0]], columns=["n_tokens", "loss_x", "loss_x"])
    with pytest.raises(RunsError, match="occurs twice"):
        read_runs(frame)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table([[1e9], [3.0], [3.0]], names=["n_tokens", "loss_x", "loss_x"]), tmp_path / "t.parquet"
    )
    with pytest.raises(RunsError, match="occurs twice"):
        read_runs(tmp_path / "t.parquet")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    runs = read_runs(write(tmp_path, GOOD))
    old = (tmp_path / "runs.csv").read_bytes()
    with pytest.raises(RunsError, match="cannot tell the format"):
        runs.write(tmp_path / "runs.xls")
    with pytest.raises(RunsError, match="cannot be written"):
        runs.write(tmp_path / "missing" / "runs.csv")
    odd = Runs(sources=(), domains=("\ud800",), n_params=None, n_tokens=np.array([1e9]),
               weights=np.empty((1, 0)), losses=np.array([[3.0]]))  # fmt: skip
    with pytest.raises(RunsError, match="cannot be written as UTF-8"):
        odd.write(tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_bytes() == old


# --- what is odd --------------------------------------------------------------------------


def codes(folder, text, level="warning"):
    return [finding.code for finding in check_runs(read_runs(write(folder, text))) if finding.level == level]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n_tokens,n_params,loss_x\n1e9,1e8,3\n", ["one-run"]),
        ("n_tokens,loss_x\n1e9,3\n2e9,2\n", ["missing-size"]),
        ("n_params,n_tokens,loss_x\n.07,2e9,3\n7,4e9,2\n.07,8e9,1\n", ["units"]),
        ("n_params,n_tokens,loss_x\n1e8,2,3\n1e9,2,2\n1e8,300,1\n", ["units"]),
        ("n_params,n_tokens,loss_x\n1e8,300000,3\n1e9,600000,2\n1e8,500000,1\n", ["units"]),
        ("n_params,n_tokens,loss_x\n7,2e9,3\n7e9,4e9,2\n7e9,2e9,1\n", ["mixed-units"]),
        ("n_params,n_tokens,loss_x\n25000,5e5,5\n100000,5e5,4\n25000,1e6,4.5\n", []),
        ("n_params,n_tokens,flops,loss_x\n1e8,2e9,1.2,3\n1e8,4e9,2.4,2\n", ["flops"]),
        ("n_params,n_tokens,flops,loss_x\n1e8,2e9,1.2e18,3\n1e8,4e9,2.4e18,2\n", []),
        ("n_params,n_tokens,loss_x\n1e8,2e9,3\n1e8,4e9,3\n1e8,8e9,3\n", ["constant"]),
        ("n_params,n_tokens,loss_x\n1e8,2e9,33\n1e8,4e9,30\n", ["high-loss"]),
        ("n_params,n_tokens,loss_x\n1e8,2e9,3\n1e9,2e10,2\n1e10,2e11,1.5\n", ["collinear"]),
        ("n_params,n_tokens,loss_x\n1e8,2e9,3\n1e9,2e10,2\n1e8,2e9,3\n1e9,2e9,2.5\n", ["duplicates"]),
        ("weight_a,weight_b,loss_x\n1,0,3\n.5,.5,2\n", []),
        ("weight_a,weight_b,weight_c,loss_x\n1,0,0,3\n.5,.5,0,2\n.2,.8,0,2.5\n", ["unused-source"]),
        ("weight_a,weight_b,weight_c,loss_x\n.7,0,.3,3\n.2,.5,.3,2\n.6,.1,.3,1\n", ["constant-weight"]),
        ("weight_a,weight_b,weight_c,loss_x\n.7,.1,.2,3\n.2,.5,.3,2\n", ["few-mixtures"]),
        ("run_id,n_params,n_tokens,loss_x\na,1e8,2e9,3\na,1e9,2e9,2\nb,1e9,4e9,1\n", ["run-id"]),
        ("n_params,n_tokens,loss_x,loss_y\n1e8,2e9,3,4\n1e8,4e9,3,4\n1e8,8e9,2,3\n", ["copied-losses"]),
        ("run_id,n_params,n_tokens,loss_x\na,1e8,2e9,3\na,1e8,4e9,2\nb,1e8,4e9,1\n", ["checkpoints"]),
        ("run_id,is_final,n_params,n_tokens,loss_x\na,0,1e8,2e9,3\na,1,1e8,4e9,2\n", []),
        ("weight_a,n_params,n_tokens,loss_x\n1,1e8,2e9,3\n1,1e8,4e9,2\n1,1e8,8e9,1\n", ["checkpoints"]),
        ("weight_a,seed,n_params,n_tokens,loss_x\n1,0,1e8,2e9,3\n1,1,1e8,4e9,2\n1,2,1e8,8e9,1\n", []),
        ("n_params,n_tokens,loss_x\n1e8,2e9,3\n1e8,4e9,2\n1e8,8e9,1\n", []),
    ],
)  # fmt: skip
def test_oddities_are_found(tmp_path, text, expected):
    assert codes(tmp_path, text) == expected
    messages = read_runs(tmp_path / "runs.csv").warnings
    assert len(messages) == len(expected)
    assert all(message.endswith(".") and "\n" not in message for message in messages)


def test_notes(tmp_path):
    text = "seed,n_params,n_tokens,loss_x\n0,1e8,2e9,3\n1,1e8,2e9,3.1\n0,1e9,2e9,\n0,1e9,4e9,2\n"
    assert codes(tmp_path, text, "note") == ["missing", "repeats"]
    assert read_runs(tmp_path / "runs.csv").warnings == ()


def test_unknown_columns_are_named(tmp_path):
    text = "n_params,n_tokens,weigth_x,losses_y,learning rate,unique_web,loss_x\n"
    text += "1e8,2e9,1,2,3,4,3\n1e8,4e9,1,2,3,4,2\n"
    warnings = read_runs(write(tmp_path, text)).warnings
    assert any("'weigth_x' is ignored: did you mean 'weight_x'" in warning for warning in warnings)
    assert any("'losses_y' is ignored: did you mean 'loss_y'" in warning for warning in warnings)
    assert any("columns 'learning rate', 'unique_web'" in warning for warning in warnings)


def test_a_domain_without_losses_is_left_out(tmp_path):
    runs = read_runs(write(tmp_path, "n_params,n_tokens,loss_x,loss_y\n1e8,2e9,3,\n1e8,4e9,2,na\n"))
    assert runs.domains == ("x",)
    assert runs.warnings == ("left out, because every loss is missing: 'loss_y'.",)


def test_summary(tmp_path):
    summary = summarize_runs(read_runs(write(tmp_path, GOOD)))
    assert summary["n_runs"] == 4
    assert summary["missing_cells"] == 1
    assert summary["mixtures"] == 4
    assert summary["sources"]["hq"] == {"min": 0.0, "mean": 0.5625, "max": 1.0, "zeros": 1}
    assert [scale["runs"] for scale in summary["scales"]] == [1, 1, 1, 1]
    assert -1 <= summary["scale_correlation"] <= 1


def test_published_tables(datasets):
    from lawkit.runs import import_runs

    runs = import_runs(datasets / "slimpajama7" / "runs_122M_310M.csv", params_column="model_size")
    assert (len(runs), len(runs.sources), len(runs.domains)) == (1308, 7, 8)
    found = {finding.code: finding for finding in check_runs(runs)}
    assert "checkpoints" in found
    # The last two checkpoints of each of the 120 runs carry the same losses.
    assert len(found["copied-losses"].rows) == 240


# --- properties ---------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and not name.endswith("_se")
)
POSITIVE = st.floats(1e-300, 1e300, allow_subnormal=False)
LOSSES = st.one_of(st.none(), st.floats(5e-324, 1e300))


@st.composite
def tables(draw):
    """Runs as anybody could have made them."""
    n = draw(st.integers(1, 6))
    sources = draw(st.lists(NAMES, max_size=4, unique=True))
    domains = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    raw = np.array(draw(st.lists(st.lists(st.floats(0, 1), min_size=len(sources), max_size=len(sources)),
                                 min_size=n, max_size=n))).reshape(n, len(sources))  # fmt: skip
    raw[:, :1] += 1e-3  # some weight, so that there is a sum to divide by
    weights = raw / raw.sum(axis=1, keepdims=True) if sources else raw
    column = st.lists(POSITIVE, min_size=n, max_size=n)
    losses = [
        [x if x is not None else math.nan for x in draw(st.lists(LOSSES, min_size=n, max_size=n))]
        for _ in domains
    ]
    for values in losses:
        values[0] = draw(POSITIVE)
    names = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=n, max_size=n)
    return Runs(
        sources=tuple(sources),
        domains=tuple(domains),
        n_params=np.array(draw(column)),
        n_tokens=draw(st.one_of(st.none(), column.map(np.array))),
        weights=weights,
        losses=np.array(losses).T,
        flops=draw(st.one_of(st.none(), column.map(np.array))),
        run_id=draw(st.one_of(st.none(), names.map(lambda ids: np.array(ids, dtype=object)))),
        seed=draw(
            st.one_of(st.none(), st.lists(st.integers(-1, 2**40), min_size=n, max_size=n).map(np.array))
        ),
        is_final=draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=n, max_size=n).map(np.array))),
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz"])
@given(runs=tables())
@settings(max_examples=40)
def test_what_is_written_reads_back_bit_for_bit(suffix, runs, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"property{suffix}"
    runs.write(path)
    again = read_runs(path)
    assert (again.sources, again.domains) == (runs.sources, runs.domains)
    for name in ("n_params", "n_tokens", "weights", "losses", "flops", "seed", "is_final"):
        mine, theirs = getattr(runs, name), getattr(again, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert mine.tobytes() == theirs.tobytes(), name
    if runs.run_id is not None:
        assert again.run_id.tolist() == runs.run_id.tolist()


BAD_NUMBERS = st.one_of(
    st.sampled_from(["-1", "0", "inf", "-inf", "1e999", "one", "1,5", "0x10", "1e", "--", "1_0", "٣"]),
    st.sampled_from(["3 5", "\x00"]),
    st.floats(max_value=0).map(repr),
    st.text(st.characters(codec="utf-8", exclude_categories=["N"]), min_size=1, max_size=5).filter(
        lambda text: text.strip().lower() not in {"", "nan", "na", "n/a", "<na>", "null", "none"}
    ),
)  # fmt: skip


@given(
    row=st.integers(1, 4),
    column=st.sampled_from(["n_params", "n_tokens", "loss_wiki", "loss_code"]),
    bad=BAD_NUMBERS,
)
@settings(max_examples=200)
def test_any_corrupt_cell_is_a_runs_error_that_names_it(row, column, bad, tmp_path_factory):
    records = list(csv.DictReader(GOOD.splitlines()))
    records[row - 1][column] = bad
    path = tmp_path_factory.getbasetemp() / "corrupt.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with pytest.raises(RunsError) as caught:
        read_runs(path)
    assert f"row {row}, column {column!r}" in str(caught.value)


NEARLY_TABLES = st.text(alphabet='n_tokenslx,"\n\r\t ;01e9.-{}[]:', max_size=120).map(str.encode)


@given(
    content=st.one_of(st.binary(max_size=200), NEARLY_TABLES),
    suffix=st.sampled_from([".csv", ".jsonl", ".tsv", ".parquet", ".csv.gz"]),
)
@settings(max_examples=300)
def test_any_bytes_give_runs_or_a_runs_error(content, suffix, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(content)
    try:
        read = len(read_runs(path))
    except RunsError as error:
        read = str(error).startswith(str(path))
    assert read


def test_a_domain_may_not_have_the_column_of_another_s_standard_error():
    losses = np.array([[3.0, 2.5]])
    alike = {"sources": (), "n_params": None, "n_tokens": None, "weights": np.empty((1, 0)), "losses": losses}
    assert Runs(domains=("a", "a_se"), **alike).losses_se is None
    with pytest.raises(
        RunsError, match="'a' and 'a_se' cannot stand together in a table with standard errors"
    ):
        Runs(domains=("a_se", "a"), losses_se=losses / 100, **alike)
