"""Which law to trust beyond the runs: laws beside each other, and the one that is likely to err least.

A law's score is the relative error that is to be expected of it one e-fold beyond the runs, by domain and averaged over
the domains:

    hypot(error of its earlier forecasts, guess)

The earlier forecasts are those of `lawkit.fitting.bands`: the law fitted to the runs of least compute forecasts the
others, at several cuts. Where no size varies, fifths of the runs are left out instead, and the error expected
is that at other mixtures of this one scale.

The guess is for each size that is recorded and takes one value: what the law says of it rests on its priors, and the
standard deviation of the log loss with that size times e says how much. A law that ignores such a size claims that the
loss does not change with it; it is taken to be as wrong as `lawkit.fitting.bands.ELASTICITY` allows.

Two laws tie where the mean of the differences of their scores over the cuts is under its standard error. Of those that
tie with the best, the one of fewest parameters is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lawkit import laws as zoo
from lawkit.errors import FitError, LawkitError
from lawkit.fitting.bands import ELASTICITY
from lawkit.fitting.diagnostics import diagnose
from lawkit.fitting.judging import Judge, Judged
from lawkit.fitting.prepare import check_columns, check_values, distinct, recorded_sizes, some, usable_domains
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: A law is given up when it cannot come nearer to the best score so far than this factor: those that tie are kept.
_MARGIN = 1.1
