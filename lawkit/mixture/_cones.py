"""A small writer of conic programs for Clarabel.

cvxpy takes longer to compile these programs than Clarabel to solve them, and half a second to import. The
laws need three kinds of rows only, so the matrices are written directly; the tests state the same programs in
cvxpy and compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lawkit.errors import OptimizeError


class SolverError(OptimizeError):
    """A conic solver gave no usable point. Its word that there is none proves nothing."""


class Affine:
    """n affine expressions in a program's variables, as coordinate triplets and a constant (n,).

    `+`, `-` and scaling by a number or a vector (n,) work row by row.
    """

    def __init__(self, row: np.ndarray, column: np.ndarray, value: np.ndarray, constant: np.ndarray) -> None:
        self.row, self.column, self.value, self.constant = row, column, value, constant

    def __len__(self) -> int:
        return len(self.constant)

    def __add__(self, other: Affine | np.ndarray | float) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.row, self.column, self.value, self.constant + other)
        return Affine(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.column, other.column]),
            np.concatenate([self.value, other.value]),
            self.constant + other.constant,
        )

    def __mul__(self, factor: np.ndarray | float) -> Affine:
        each = np.broadcast_to(np.asarray(factor, float), (len(self),))
        return Affine(self.row, self.column, self.value * each[self.row], self.constant * each)

    __radd__, __rmul__ = __add__, __mul__
    __array_ufunc__ = None  # so that `vector * affine` comes here instead of to numpy

    def __neg__(self) -> Affine:
        return self * -1.0

    def __sub__(self, other: Affine | np.ndarray | float) -> Affine:
        return self + (-other)

    def __rsub__(self, other: np.ndarray | float) -> Affine:
        return -self + other

    def tile(self, times: int) -> Affine:
        """The rows repeated in order, `times` times."""
        n = len(self)
        return Affine(
            np.concatenate([self.row + n * k for k in range(times)]),
            np.tile(self.column, times),
            np.tile(self.value, times),
            np.tile(self.constant, times),
        )

    def where(self, keep: np.ndarray) -> Affine:
        """The rows where `keep` (n,) is True."""
        renumber = np.cumsum(keep) - 1
        kept = keep[self.row]
        return Affine(renumber[self.row[kept]], self.column[kept], self.value[kept], self.constant[keep])

    def sum(self, width: int | None = None) -> Affine:
        """Sums of `width` consecutive rows each (of all rows if None)."""
        width = len(self) if width is None else width
        constant = self.constant.reshape(-1, width).sum(axis=1)
        return Affine(self.row // width, self.column, self.value, constant)


class ConeProgram:
    """Minimise a linear objective under linear and exponential-cone rows.

    Examples
    --------
    The least x + y with x >= exp(-y):

    >>> program = ConeProgram()
    >>> x, y = program.variable(1), program.variable(1)
    >>> program.at_least_exp(x, -y)
    >>> solution = program.minimise(x + y)
    >>> bool(abs(program.value(x + y, solution)[0] - 1.0) < 1e-6)
    True
    """

    def __init__(self) -> None:
        self._size = 0
        self._rows: dict[str, list[tuple[Affine, ...]]] = {
            kind: [] for kind in ("zero", "nonnegative", "exponential")
        }

    def variable(self, n: int) -> Affine:
        """A new vector of n variables."""
        start, self._size = self._size, self._size + n
        return Affine(np.arange(n), np.arange(start, self._size), np.ones(n), np.zeros(n))

    def equal_zero(self, expression: Affine) -> None:
        """Rows expression = 0."""
        self._rows["zero"].append((expression,))

    def nonnegative(self, expression: Affine) -> None:
        """Rows expression >= 0."""
        self._rows["nonnegative"].append((expression,))

    def at_least_exp(self, bound: Affine, exponent: Affine) -> None:
        """Rows bound >= exp(exponent)."""
        self._rows["exponential"].append((exponent, constant(np.ones(len(bound))), bound))

    def minimise(self, objective: Affine, tolerance: float = 1e-10) -> np.ndarray:
        """The minimiser, as the values of all variables; read it with `value`.

        Raises
        ------
        SolverError
            When Clarabel ends without a usable point.
        """
        from importlib import import_module

        from scipy import sparse

        clarabel: Any = import_module("clarabel")  # a compiled module without type information

        row, column, value, offset, cones, at = [], [], [], [], [], 0
        for kind, blocks in self._rows.items():
            for expressions in blocks:
                n, width = len(expressions[0]), len(expressions)
                b = np.empty((n, width))
                for slot, expression in enumerate(expressions):
                    row.append(at + width * expression.row + slot)
                    column.append(expression.column)
                    value.append(-expression.value)  # Clarabel's form: A x + s = b, s in the cone
                    b[:, slot] = expression.constant
                offset.append(b.ravel())
                at += n * width
                if kind == "zero":
                    cones.append(clarabel.ZeroConeT(n))
                elif kind == "nonnegative":
                    cones.append(clarabel.NonnegativeConeT(n))
                else:
                    cones.extend(clarabel.ExponentialConeT() for _ in range(n))
        cost = np.zeros(self._size)
        np.add.at(cost, objective.column, objective.value)
        matrix = sparse.csc_matrix(
            (np.concatenate(value), (np.concatenate(row), np.concatenate(column))), shape=(at, self._size)
        )
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
        nothing = sparse.csc_matrix((self._size, self._size))
        solver = clarabel.DefaultSolver(nothing, cost, matrix, np.concatenate(offset), cones, settings)
        solution = solver.solve()
        status, x = str(solution.status), np.asarray(solution.x)
        # The certificate judges the point afterwards, so one that stopped short is still worth having.
        usable = status in ("Solved", "AlmostSolved", "InsufficientProgress", "MaxIterations")
        if not usable or not np.all(np.isfinite(x)):
            raise SolverError(f"Clarabel ended with status {status} after {solution.iterations} iterations")
        return x

    @staticmethod
    def value(expression: Affine, solution: np.ndarray) -> np.ndarray:
        """The value (n,) of an expression at a solution."""
        out = expression.constant.copy()
        np.add.at(out, expression.row, expression.value * solution[expression.column])
        return out


def constant(values: np.ndarray) -> Affine:
    """Expressions that are numbers."""
    none = np.empty(0, dtype=int)
    return Affine(none, none, np.empty(0), np.asarray(values, float))
