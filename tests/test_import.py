"""Other people's tables become runs tables, or the message says which option to change."""

# Columns that a table may lack are None to a type checker; here every table has them.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lawkit.cli import main
from lawkit.errors import RunsError
from lawkit.io._patterns import match_columns
from lawkit.runs import import_runs, read_runs


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


TABLE = "size,tok,mix_web,mix_hq,wiki_loss,code_loss,note\n0.07,2,50,50,3.5,2.5,x\n0.16,4,25,75,3.25,2.25,y\n"


# --- patterns -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["{}_loss"], {"wiki": "wiki_loss", "a.b": "a.b_loss"}),
        (["eval/{}"], {"x": "eval/x"}),
        (["best=wiki_loss"], {"best": "wiki_loss"}),
        (["wiki_loss"], {"wiki": "wiki_loss"}),
        (["loss"], {"loss": "loss"}),
        (["a=b"], {"a=b": "a=b"}),
        (["w{}s", "loss"], {"iki_los": "wiki_loss", "loss": "loss"}),
    ],
)
def test_patterns(patterns, expected):
    columns = ["wiki_loss", "a.b_loss", "eval/x", "loss", "a=b"]
    assert match_columns(patterns, columns, "t.csv", "--losses", strip="loss") == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["{}_{}"], "more than one"),
        (["wiki_los"], "no column 'wiki_los' .*Did you mean 'wiki_loss'"),
        (["=wiki_loss"], "lacks a name"),
        (["{}_loss", "wiki=eval/wiki"], "finds 'wiki' twice"),
    ],
)
def test_patterns_that_are_refused(patterns, message):
    with pytest.raises(RunsError, match=message):
        match_columns(patterns, ["wiki_loss", "eval/wiki"], "t.csv", "--losses")


# --- one file -----------------------------------------------------------------------------


def test_columns_scales_and_percentages(tmp_path):
    runs = import_runs(
        write(tmp_path, "t.csv", TABLE),
        params_column="size",
        params_scale=1e9,
        tokens_column="tok",
        tokens_scale=1e9,
        weights="mix_{}",
        normalize=True,
    )
    assert runs.n_params.tolist() == [7e7, 1.6e8]
    assert runs.n_tokens.tolist() == [2e9, 4e9]
    assert runs.weights.tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert (runs.sources, runs.domains) == (("web", "hq"), ("wiki", "code"))
    assert runs.warnings[0] == "weights were divided by their sums, 100 to 100."


def test_messages_name_the_users_columns(tmp_path):
    path = write(tmp_path, "t.csv", TABLE)
    with pytest.raises(RunsError, match=r"look like percentages.*--normalize"):
        import_runs(path, n_params=1e8, n_tokens=1e9, weights="mix_{}")
    broken = write(tmp_path, "broken.csv", TABLE.replace("3.25", "-1"))
    with pytest.raises(RunsError, match="row 2, column 'wiki_loss'"):
        import_runs(broken, n_params=1e8, n_tokens=1e9)
    with pytest.raises(RunsError, match=r"no column 'sizes' \(--params-column\).*Did you mean 'size'"):
        import_runs(path, params_column="sizes")
    with pytest.raises(RunsError, match="no column matches --losses val_"):
        import_runs(path, n_params=1e8, losses="val_{}")
    with pytest.raises(RunsError, match="no column matches --weights share_"):
        import_runs(path, n_params=1e8, weights="share_{}")
    with pytest.raises(RunsError, match=r"--source web and --weights exclude"):
        import_runs(path, n_params=1e8, weights="mix_{}", source="web")
    with pytest.raises(RunsError, match="unknown format 'csv'"):
        import_runs(path, format="csv")
    with pytest.raises(RunsError, match="no file to import"):
        import_runs([])


def test_units_that_look_off_are_said(tmp_path):
    runs = import_runs(write(tmp_path, "t.csv", TABLE), params_column="size", tokens_column="tok")
    assert sum("--params-scale 1e9" in warning for warning in runs.warnings) == 1
    assert sum("--tokens-scale 1e9" in warning for warning in runs.warnings) == 1


def test_tokens_from_flops(tmp_path):
    path = write(tmp_path, "t.csv", "N,C,loss\n1e8,1.2e18,3\n2e8,1.2e18,2.5\n4e8,9.6e18,2\n")
    runs = import_runs(path, params_column="N", flops_column="C", losses="loss")
    assert runs.n_tokens.tolist() == [2e9, 1e9, 4e9]
    assert runs.flops.tolist() == [1.2e18, 1.2e18, 9.6e18]
    assert runs.warnings == ("n_tokens is derived as C / (6 n_params).",)
    with pytest.raises(RunsError, match="only together with the number of parameters"):
        import_runs(path, flops_column="C", losses="loss")
    zero = write(tmp_path, "zero.csv", "N,C,loss\n1e8,0,3\n")
    with pytest.raises(RunsError, match=r"flops must be positive and finite.*row 1, column 'C'"):
        import_runs(zero, params_column="N", flops_column="C", losses="loss")


def test_one_source_with_unique_tokens(tmp_path):
    path = write(tmp_path, "t.csv", "name,n,d,u,val_loss\na,1e8,4e9,1e9,3\nb,1e8,8e9,1e9,2.9\n")
    options: dict[str, Any] = {
        "params_column": "n",
        "tokens_column": "d",
        "losses": "c4=val_loss",
        "run_id_column": "name",
    }
    runs = import_runs(path, **options, source="c4", unique="u")
    assert runs.weights.tolist() == [[1.0], [1.0]]
    assert runs.unique.tolist() == [[1e9], [1e9]]
    assert runs.run_id.tolist() == ["a", "b"]
    with pytest.raises(RunsError, match=r"--unique names 'u', which is no source"):
        import_runs(path, **options, unique="u")


def test_contract_columns_come_along(tmp_path):
    text = "run_id,seed,n_params,n_tokens,weight_a,unique_a,loss_x,loss_x_se\n"
    text += "r,3,1e8,2e9,1,5e9,3,0.1\ns,4,1e9,2e9,1,5e9,2,0.1\n"
    path = write(tmp_path, "t.csv", text)
    assert import_runs(path).columns() == read_runs(path).columns()
    # A domain whose name begins with another's is no standard error of it.
    path = write(tmp_path, "u.csv", "n_tokens,loss_abc,loss_abcdef\n1e9,3,2\n2e9,2,1\n")
    assert import_runs(path).domains == ("abc", "abcdef")


def test_mark_final(tmp_path):
    rows = "".join(f"{size},{tok},1,{tok}\n" for size in (1e8, 1e9) for tok in (3e9, 2e9, 1e9))
    path = write(tmp_path, "t.csv", "n_params,n_tokens,weight_a,x\n" + rows.replace("e+09\n", "\n"))
    assert any("look like checkpoints" in w for w in import_runs(path, losses="x=x").warnings)
    runs = import_runs(path, losses="x=x", mark_final=True)
    assert runs.is_final.tolist() == [True, False, False] * 2
    assert not any("look like checkpoints" in warning for warning in runs.warnings)


# --- several files ------------------------------------------------------------------------

MIXTURES = "index,weight_a,weight_b\n1,0.5,0.5\n2,0.25,0.75\n3,1,0\n"


def test_join_follows_the_first_file_and_counts_the_rest(tmp_path):
    left = write(tmp_path, "mix.csv", MIXTURES)
    right = write(
        tmp_path,
        "loss.jsonl",
        '{"index": 3, "x_loss": 2}\n{"index": 1.0, "x_loss": 3}\n{"index": 9, "x_loss": 4}\n',
    )
    runs = import_runs([left, right], n_params=1e6, n_tokens=1e9)
    assert runs.run_id.tolist() == ["1", "3"]
    assert runs.losses[:, 0].tolist() == [3.0, 2.0]
    assert sum("1 of 3 rows have no partner on 'index'" in warning for warning in runs.warnings) == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("index,x_loss\n1,3\n1,2\n", "'index' is '1' in rows 1 and 2"),
        ("index,x_loss\n7,3\n", "no row of one has a partner"),
        ("index,x_loss\n,3\n", "row 1 has no 'index'"),
        ("id,x_loss\n1,3\n", "several files need --on COLUMN"),
    ],
)
def test_joins_that_are_refused(tmp_path, second, message):
    files = [write(tmp_path, "mix.csv", MIXTURES), write(tmp_path, "loss.csv", second)]
    with pytest.raises(RunsError, match=message):
        import_runs(files)


def test_olmix(tmp_path):
    ratios = write(tmp_path, "ratios.csv", "run,name,dclm,wiki\nr1,one,0.45,0.555\nr2,two,0.6,0.4\n")
    metrics = write(tmp_path, "metrics.csv", "run,name,wiki,arc_bpb\nr2,two,0.9,1.1\nr1,one,0.8,1.2\n")
    # Either order; the domain wiki is not mixed up with the source wiki.
    for files in ([ratios, metrics], [metrics, ratios]):
        runs = import_runs(files, format="olmix", n_params=3e7, n_tokens=3e9)
        assert (runs.sources, runs.domains) == (("dclm", "wiki"), ("wiki", "arc_bpb"))
        assert runs.losses.tolist() == [[0.8, 1.2], [0.9, 1.1]]
        assert runs.weights.sum(axis=1) == pytest.approx([1, 1])
        assert runs.run_id.tolist() == ["r1", "r2"]
        assert any("bits per byte" in warning for warning in runs.warnings)
    assert import_runs([ratios, metrics], format="olmix", losses="{}_bpb").domains == ("arc",)
    with pytest.raises(RunsError, match="takes two files"):
        import_runs(ratios, format="olmix")
    other = write(tmp_path, "other.csv", "run_id,x\nr1,1\n")
    with pytest.raises(RunsError, match="a column run or run_id that both have"):
        import_runs([ratios, other], format="olmix")


def test_regmix_shape(tmp_path):
    mix = write(tmp_path, "m_60m.csv", "index,train_the_pile_a,train_the_pile_b\n1,0.5,0.497\n2,0.25,0.75\n")
    loss = write(tmp_path, "l.csv", "index,metric/the_pile_a_val_loss\n1,3\n2,2\n")
    runs = import_runs([mix, loss], format="regmix")
    assert (runs.sources, runs.domains) == (("a", "b"), ("a",))
    assert runs.n_params.tolist() == [6e7, 6e7]
    assert runs.weights[0, 0] == 0.5 / 0.997
    given = import_runs([mix, loss], format="regmix", n_params=5e7, n_tokens=25e9)
    assert given.n_tokens.tolist() == [25e9, 25e9]
    assert not any("is set to" in warning for warning in given.warnings)
    with pytest.raises(RunsError, match="look like RegMix"):
        import_runs([mix, loss])


# --- the published tables -----------------------------------------------------------------


def test_published_tables(datasets):
    folder = datasets / "regmix"
    for mixture, loss, n in (
        ("train_mixture_1m.csv", "train_pile_loss_1m.csv", 512),
        ("test_mixture_60m.csv", "test_pile_loss_60m.csv", 256),
    ):
        runs = import_runs([folder / mixture, folder / loss], format="regmix")
        assert runs.losses.shape == (n, 13)
        assert runs.weights.shape == (n, 17)
        assert np.isfinite(runs.losses).all()
    chinchilla = import_runs(
        datasets / "chinchilla_epoch" / "svg_extracted_data.csv",
        params_column="Model Size",
        flops_column="Training FLOP",
        losses="loss",
    )
    assert len(chinchilla) == 245
    assert chinchilla.n_tokens[0] == 9.993852799709755e18 / (6 * 6795600349.289497)
    ablations = import_runs(
        datasets / "datablations" / "points.csv",
        params_column="params",
        tokens_column="tokens",
        source="c4",
        unique="unique_tokens",
        losses="c4=val_loss",
        run_id_column="name",
    )
    assert len(ablations) == 296
    assert ablations.unique[0, 0] == 4e9
    stones = import_runs(
        datasets / "gemstones" / "wandb_df_for_fitting_hot.jsonl",
        params_column="params_active_precise",
        tokens_column="tokens",
        losses="final_loss",
        run_id_column="run_name",
    )
    assert (len(stones), stones.domains) == (220, ("final",))


# --- the command line ---------------------------------------------------------------------


def test_import_and_check_commands(tmp_path, capsys):
    path, out = write(tmp_path, "t.csv", TABLE), tmp_path / "runs.csv"
    arguments = [
        "--params-column",
        "size",
        "--params-scale",
        "1e9",
        "--tokens-column",
        "tok",
        "--tokens-scale",
        "1B",
    ]
    arguments += ["--weights", "mix_{}", "--normalize", "-o", str(out)]
    assert main(["runs", "import", str(path), *arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["n_runs"], printed["sources"], printed["domains"]) == (2, ["web", "hq"], ["wiki", "code"])
    assert read_runs(out).n_params.tolist() == [7e7, 1.6e8]

    assert main(["runs", "check", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["n_runs"] == 2
    assert {finding["code"] for finding in printed["findings"]} == {"collinear"}
    assert printed["warnings"] == [finding["message"] for finding in printed["findings"]]
    assert main(["runs", "check", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "in 2 different mixtures" in shown
    assert "move together" in shown
    assert shown.endswith("1 warning.\n")


def test_a_failed_import_leaves_the_old_table(tmp_path, capsys):
    out = write(tmp_path, "runs.csv", "n_tokens,loss_x\n1e9,3\n")
    bad = write(tmp_path, "bad.csv", "n_tokens,loss_x\n1e9,zero\n")
    assert main(["runs", "import", str(bad), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "'zero'" in captured.err
    assert "Traceback" not in captured.err
    assert out.read_text() == "n_tokens,loss_x\n1e9,3\n"
    assert main(["runs", "check", str(tmp_path / "absent.csv")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_check_groups_many_sizes(tmp_path, capsys):
    rows = "".join(f"{1e8 * (i + 1)},{1e9 * (1 + i % 7)},{4 - i / 100}\n" for i in range(40))
    path = write(tmp_path, "runs.csv", "n_params,n_tokens,loss_x\n" + rows)
    assert main(["runs", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "100M to 300M" in shown
    assert shown.endswith("Nothing is odd about this table.\n")
