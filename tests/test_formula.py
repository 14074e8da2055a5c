"""Formulas of the user: what they mean, and that nothing else gets through."""

import inspect
import math
import sys
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import lawkit
from lawkit.errors import LawError
from lawkit.laws import _law
from lawkit.laws._function import Inputs
from lawkit.laws._law import D, N, U
from lawkit.laws.formula import FormulaLaw, parse_formula

h: Any = _law.h
SOURCES = ("web", "hq", "code-v2")


def refusal(text, sources=SOURCES, **options):
    with pytest.raises(LawError) as caught:
        parse_formula(text, sources, **options)
    return str(caught.value)


def caret(message):
    """The characters that the carets of a message point at."""
    lines = message.splitlines()
    at = next(i for i, line in enumerate(lines) if set(line.strip()) == {"^"})
    return lines[at - 1][lines[at].index("^") : lines[at].rindex("^") + 1]


# ---- meaning ---------------------------------------------------------------------------------------------


def test_the_formula_of_the_documentation():
    parsed = parse_formula("E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta", SOURCES)
    E, A, alpha, B, k, beta = (sp.Symbol(s, positive=True) for s in parsed.parameters)
    assert parsed.parameters == ("E", "A", "alpha", "B", "k", "beta")
    assert parsed.expr == E + A / N**alpha + B / (D * (h[0] + k * h[1])) ** beta
    assert parsed.columns == {"N", "D"}
    assert parsed.sources == ("web", "hq")
    assert parsed.real == frozenset()


def test_synonyms_blanks_and_names_of_sources():
    a, b = sp.Symbol("a", positive=True), sp.Symbol("b", positive=True)
    assert parse_formula(" a*n_params +\n\tb*n_tokens + U", SOURCES).expr == a * N + b * D + U
    assert parse_formula("a*w_code_v2", SOURCES).expr == a * h[2]


def test_a_source_named_exactly_wins_over_one_that_only_reads_so():
    assert parse_formula("a*w_x_y", ["x-y", "x_y"]).expr.has(h[1])
    assert "could be any of the sources 'x-y', 'x.y'" in refusal("a*w_x_y", ["x-y", "x.y"])


@pytest.mark.parametrize(
    ("text", "real"),
    [
        ("c + k*exp(t1*w_web + t2*w_hq)", {"t1", "t2"}),
        ("E + exp(a - alpha*log(N))", {"a", "alpha"}),
        ("E + exp(-k*N/s)", {"k"}),
        ("E + exp(-(D/D0)**b)", set()),
        ("E*t + exp(t*w_web)", set()),
        ("E + ~a*log(D)", {"a"}),
        ("E + a*log(D) - (~a)*w_web", {"a"}),
    ],
)
def test_which_parameters_may_be_negative(text, real):
    assert parse_formula(text, SOURCES).real == real
    assert {p.name for p in FormulaLaw(text, SOURCES).parameters if p.support == "real"} == real


def test_real_can_be_asked_for():
    assert parse_formula("E + a*log(D)", real=["a"]).real == {"a"}
    assert "it has E, a" in refusal("E + a*log(D)", real=["b"])


# ---- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("import os", "import", "word of the Python language"),
        ("__import__('os').system('ls')", "__import__", "underscore"),
        ("E + A.real*N", "A.real", "looks nothing up with a dot"),
        ("E + np.exp(N)", "np.exp", "write exp(...)"),
        ("E + tanh(N)", "tanh", "functions: exp, log, sqrt"),
        ("E + expp(N)", "expp", "did you mean exp"),
        ("E + A(N)", "A", "for a product write A*(...)"),
        ("E + 2(N)", "2(N)", "* is missing"),
        ("E + w_web[0]", "[", "no indexing"),
        ("lambda x: x", "lambda", "Python language"),
        ("E + lambda*N", "lambda", "lambda_ would do"),
        ("sum(a for a in N)", "for", "Python language"),
        ("[N for a in N]", "[", "no place"),
        ("E + 'N'", "'", "text has no place"),
        ('f"{N}"', '"', "text has no place"),
        ("E < N", "<", "no place"),
        ("E == N", "=", "right-hand side"),
        ("(E := N)", ":", "no place"),
        ("E if N else D", "if", "Python language"),
        ("E and N", "and", "Python language"),
        ("E^N", "^", "write ** for a power"),
        ("E // N", "E // N", "operator //"),
        ("E @ N", "@", "no place"),
        ("E + A/N**alpha + w_wbe", "w_wbe", "did you mean 'w_web'?"),
        ("E + w_arxiv", "w_arxiv", "weights: "),
        ("E + weight_web*a", "weight_web", "did you mean 'w_web'?"),
        ("E + loss_web*N", "loss_web", "cannot use this column"),
        ("E + A/n_param", "n_param", "looks like 'n_params'"),
        ("E + Ν*a", "Ν", "looks like the letter 'N'"),
        ("E + α*N", "α", "letters A-Z"),
        ("E + h*N", "h", "w_<source>"),
        ("exp + N", "exp", "write exp(...)"),
        ("exp(N, a)", "exp(N, a)", "exactly one"),
        ("exp(*N) + a", "exp(*N)", "exactly one"),
        ("exp()", "exp()", "exactly one"),
        ("~N + a", "~N", "marks a parameter"),
        ("~(a + N)", "~(a + N)", "marks a parameter"),
        ("a, N", "a, N", "comma"),
        ("E + * N", "*", "unexpected here"),
        ("E N", "N", "unexpected here"),
        ("(E + N", "(", "no partner"),
        ("E + N)", ")", "no partner"),
        ("E + 2N", "2N", "not a number"),
        ("E + 7B*N", "7B", "a size as 7e9"),
        ("E + 1j*N", "1j", "not a number"),
        ("E + 0x10*N", "0x10", "not a number"),
        ("E + 1e999*N", "1e999", "proportion"),
        ("E + 1e-999*N", "1e-999", "proportion"),
        ("9**9**9", "9**9", "proportion"),
        ("((2*a)**100)**100 + N", "100", "proportion"),
        ("E + N/0", "0", "division by zero"),
        ("E + N/(A - A)", "A - A", "division by zero"),
        ("0**-1 + a*N", "0**-1", "division by zero"),
        ("(-2)**.5 + a*N", "-2", "whole exponent"),
        ("log(-1) + a*N", "log(-1)", "positive number"),
        ("sqrt(-a) + N", "sqrt(-a)", "not real"),
        ("exp(exp(exp(9))) + a*N", "exp(exp(9))", "proportion"),
        ("E + 0*A*N", "A", "cancels out"),
        ("E + N + A - A", "A", "cancels out"),
        ("3*N", "3*N", "no parameter"),
        ("E + A", "E + A", "depends on nothing but parameters"),
        ("E + \x1b[31mN", "?", "U+001B"),
    ],
)
def test_every_refusal_points_at_the_place(text, at, says):
    message = refusal(text)
    assert caret(message) == at
    assert says in message


def test_a_formula_that_ends_too_early_points_behind_it():
    message = refusal("E + ")
    assert "ends too early" in message
    assert message.splitlines()[2] == " " * (2 + len("E +")) + "^"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_formula(text):
    assert "empty" in refusal(text)


def test_not_even_text():
    assert "NoneType" in refusal(None)


def test_weights_without_sources():
    assert "no weight_ columns" in refusal("E + a*w_web", ())


def test_a_long_formula_is_shown_around_the_place():
    message = refusal("E" + " + A/N**alpha" * 40 + " + w_hqq" + " + B/D**beta" * 40)
    assert caret(message) == "w_hqq"
    assert max(len(line) for line in message.splitlines()) < 120


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "N" + ")" * 10_000,
        "-" * 3_900 + "N",
        "exp(" * 100 + "a*N" + ")" * 100,
        "**".join(["a"] * 1_900) + "*N",
        "a+N**(" * 900 + "a" + ")" * 900,
        "+".join(["a*N"] * 10_000),
        "N+" * 30_000 + "a",
        "9**" * 500 + "9*a*N",
        "a*N*" + "1" * 10_000,
    ],
    ids=lambda text: text[:12],
)
def test_huge_formulas_are_refused_without_effort(text):
    refusal(text)


def test_long_sums_are_not_deep():
    sources = [f"s{k}" for k in range(300)]
    parsed = parse_formula(
        "E + B/(D*(" + " + ".join(f"k{k}*w_s{k}" for k in range(300)) + "))**beta", sources
    )
    assert len(parsed.parameters) == 303
    assert parsed.sources == tuple(sources)


def test_deep_in_the_stack_the_error_stays_ours():
    def dive(depth):
        return dive(depth - 1) if depth else parse_formula("E + " + "(" * 25 + "N" + ")" * 25 + "**a" * 25)

    with pytest.raises(LawError, match="too deeply"):
        dive(sys.getrecursionlimit() - len(inspect.stack()) - 40)


# ---- properties ------------------------------------------------------------------------------------------

FRAGMENTS = (
    r"N D U w_web w_hq E A alpha exp log sqrt lambda import"
    r" True 1e9 2 0 9 1j ** * / + - ( ) ~ , . [ ' = : __ \ "
)
fragments = st.sampled_from([*FRAGMENTS.split(), "\n", " "])


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(fragments, max_size=25).map("".join)))
def test_any_text_is_a_formula_or_a_law_error(text):
    try:
        parsed = parse_formula(text, SOURCES)
    except LawError:
        return
    assert parsed.parameters
    assert {str(s) for s in parsed.expr.free_symbols} >= set(parsed.parameters)


def _grow(inner):
    """Make larger expressions from smaller ones, positive throughout: powers and logarithms stay real."""
    both = st.tuples(inner, inner)
    return st.one_of(
        both.map(lambda t: f"({t[0]} + {t[1]})"),
        both.map(lambda t: f"{t[0]}*{t[1]}"),
        both.map(lambda t: f"{t[0]} / ({t[1]})"),
        st.tuples(inner, st.sampled_from(["alpha", "0.5", "2", "-1", "-alpha"])).map(
            lambda t: f"({t[0]})**{t[1]}"
        ),
        inner.map(lambda t: f"sqrt({t})"),
        inner.map(lambda t: f"log(1 + {t})"),
        inner.map(lambda t: f"exp(-({t}))"),
    )


leaves = st.sampled_from(["N", "D", "U", "w_web", "w_hq", "w_code_v2", "E", "A", "alpha", "3", ".25", "1e-3"])
expressions = st.recursive(leaves, _grow, max_leaves=12)
finite = st.floats(0.1, 3.0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expressions, st.lists(finite, min_size=6, max_size=6), st.randoms(use_true_random=False))
def test_a_valid_formula_means_what_python_says(text, values, random):
    text = f"{text} + E*alpha*A*N"
    try:
        parsed = parse_formula(text, SOURCES)
    except LawError as error:
        if "out of all proportion" not in str(error):  # exp(-1000) and the like, which no float holds
            raise
        reject()
    parameters = dict(zip(["E", "A", "alpha"], values, strict=False))
    n, d, u = (np.array([random.uniform(0.2, 3) for _ in range(4)]) for _ in range(3))
    weights = np.array([[random.uniform(0.1, 1) for _ in SOURCES] for _ in range(4)])
    names = {"N": n, "D": d, "U": u, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, **parameters}
    names |= {f"w_{s}": weights[:, k] for k, s in enumerate(["web", "hq", "code_v2"])}
    with np.errstate(all="ignore"):
        expected = eval(text, {"__builtins__": {}}, names)
        symbols = [N, D, U, h[0], h[1], h[2], *(s for s in parsed.expr.free_symbols if str(s) in parameters)]
        arguments = [n, d, u, *weights.T, *(parameters[str(s)] for s in symbols[6:])]
        found = sp.lambdify(symbols, parsed.expr, "numpy")(*arguments)
    if np.all(np.isfinite(expected)):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,11}", fullmatch=True))
def test_any_plain_name_is_a_parameter_or_refused_at_its_place(name):
    try:
        parsed = parse_formula(f"{name}*N + E")
    except LawError as error:
        message = str(error)
    else:
        assert set(parsed.parameters) in ({name, "E"}, {"E"})
        return
    assert caret(message) in f"{name}*N"


# ---- as a law --------------------------------------------------------------------------------------------

FORMULAS = [
    "E + A/N**alpha + B/D**beta",
    "E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta",
    "c + k*exp(t1*w_web + t2*w_hq)",
    "(A/N**a + B/D**b)**g + E",
    "E + B*D0/(D + D0)",
    "E + exp(-(D/D0)**b) + U**-c",
]


def _inputs(rng, rows=5):
    return Inputs(
        n_params=10 ** rng.uniform(8, 10, rows),
        n_tokens=10 ** rng.uniform(9, 11, rows),
        weights=rng.dirichlet(np.ones(3), rows),
        own=np.full((1, 1), -1),
        unique=10 ** rng.uniform(9, 11, rows),
        n_ref=1e9,
        d_ref=1e10,
    )


@pytest.mark.parametrize("text", FORMULAS)
def test_values_and_natural_parameters(text):
    law, rng = FormulaLaw(text, SOURCES), np.random.default_rng(3)
    x = _inputs(rng)
    z = rng.normal(0, 0.3, (1, law.n_parameters(3)))
    values = law.natural(z[0], x.n_ref, x.d_ref)
    names = {"N": x.n_params, "D": x.n_tokens, "U": x.unique, "exp": np.exp, **values}
    names |= {"w_web": x.weights[:, 0], "w_hq": x.weights[:, 1]}
    expected = eval(text, {"__builtins__": {}}, names)
    np.testing.assert_allclose(law.function.value(z, x)[0, :, 0], expected, rtol=1e-10)
    np.testing.assert_allclose(law.unconstrained(values, x.n_ref, x.d_ref), z[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", FORMULAS)
def test_gradients_agree_with_differences(text):
    law, rng = FormulaLaw(text, SOURCES), np.random.default_rng(4)
    x = _inputs(rng)
    z = rng.normal(0, 0.3, (1, law.n_parameters(3)))
    _, gradient = law.function.jacobian(z, x)
    step = 1e-6
    for p in range(z.shape[1]):
        shift = np.eye(z.shape[1])[p] * step
        difference = (law.function.value(z + shift, x) - law.function.value(z - shift, x)) / (2 * step)
        np.testing.assert_allclose(gradient[..., p], difference, rtol=1e-6, atol=1e-8)


def test_starting_values_are_of_the_size_of_the_data():
    law = FormulaLaw("E + B*D0/(D + D0)")
    assert law.natural(np.zeros(3), 1e9, 1e10)["D0"] == pytest.approx(1e10)
    law = FormulaLaw("E + (A/N**a + 1)**g")
    assert law.natural(np.zeros(4), 1e9, 1e10)["A"] == pytest.approx(1e9)


def test_what_a_formula_law_says_of_itself():
    law = FormulaLaw("E + B/(D*(w_web\n  + k*w_hq))**beta", SOURCES)
    assert law.text() == "L = E + B/(D*(w_web + k*w_hq))**beta"
    assert r"w_{\mathrm{hq}}" in law.latex()
    assert law.columns == {"n_tokens", "weights"}
    assert not law.convex_in_weights
    assert math.isfinite(law.weight_floor)


# ---- fitted ---------------------------------------------------------------------------------------------


def _grid_runs(losses):
    n, d = (g.ravel() for g in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10, 6e10]))
    weights = np.random.default_rng(0).dirichlet([1, 1], 12)
    return lawkit.Runs(
        sources=("web", "hq"), domains=("wiki",), n_params=n, n_tokens=d, weights=weights,
        losses=losses(n, d, *weights.T)[:, None],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "truth", "losses"),
    [
        (
            "E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta",
            {"E": 1.8, "A": 480, "alpha": 0.35, "B": 2000, "k": 3, "beta": 0.37},
            lambda n, d, web, hq: 1.8 + 480 / n**0.35 + 2000 / (d * (web + 3 * hq)) ** 0.37,
        ),
        (
            "E + (A/N**a + B/D**b)**g",
            {"E": 1.8, "A": 480, "a": 0.35, "B": 2000, "b": 0.37, "g": 0.7},
            lambda n, d, web, hq: 1.8 + (480 / n**0.35 + 2000 / d**0.37) ** 0.7,
        ),
        ("E + B*D0/(D + D0)", {"E": 1.8, "B": 2, "D0": 5e9}, lambda n, d, web, hq: 1.8 + 1e10 / (d + 5e9)),
        ("c + exp(t*w_hq)", {"c": 2.0, "t": -0.7}, lambda n, d, web, hq: 2 + np.exp(-0.7 * hq)),
        ("E + ~a*log(D)", {"E": 4.0, "a": -0.05}, lambda n, d, web, hq: 4 - 0.05 * np.log(d)),
    ],
    ids=["mixture", "coupled", "half-point", "exponential", "marked"],
)
def test_a_fit_finds_the_parameters_again_and_survives_its_folder(text, truth, losses, tmp_path):
    runs = _grid_runs(losses)
    fit = lawkit.fit(runs, formula=text, holdout="none")
    assert fit.parameters["wiki"] == pytest.approx(truth, rel=1e-5)
    fit.save(tmp_path / "fit")
    again = lawkit.load_fit(tmp_path / "fit")
    at = (runs.n_params, runs.n_tokens, runs.weights)
    np.testing.assert_array_equal(again.losses(*at), fit.losses(*at))


def test_a_wrong_formula_is_refused_by_fit():
    runs = _grid_runs(lambda n, d, web, hq: 3 + 0 * n + np.sin(d))
    with pytest.raises(LawError, match="did you mean 'w_web'"):
        lawkit.fit(runs, formula="E + w_wbe/N**a")
