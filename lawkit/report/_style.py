"""How every figure looks: colours that colour-blind readers tell apart, and line styles and markers without colour.

Figures are made of `matplotlib.figure.Figure` alone, so that no window, no pyplot and no setting of the caller's is
touched; what matplotlib reads from its global settings only is set for the moment and put back.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from lawkit.errors import ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

#: Okabe and Ito's colours (2008, Color Universal Design), without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
#: Held-out runs, the ends of scales, optima: what the eye should find first.
ACCENT = "#D55E00"
GREY, FAINT = "#595959", "#B8B8B8"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (9, 2)))

#: Inches, and points of type.
WIDTH, TITLE, TEXT, SMALL = 7.2, 10.0, 8.0, 7.0
#: Domains or sources that get a panel of their own.
PANELS = 9

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    # A source may be called a$b$c.
    "text.parse_math": False,
    # SVG: text that can be searched and read out, and the same names of parts every time.
    "svg.fonttype": "none",
    "svg.hashsalt": "lawkit",
}


@dataclass(frozen=True)
class Look:
    """Colour, line style and marker of one thing drawn; no two of the first 35 have the same pair of the first two."""

    color: str
    dash: Any
    marker: str


def look(i: int) -> Look:
    """The look of thing number `i`."""
    turn = i // len(PALETTE)
    return Look(
        PALETTE[i % len(PALETTE)],
        DASHES[(i % len(PALETTE) + turn) % len(DASHES)],
        MARKERS[(i + turn) % len(MARKERS)],
    )


@contextmanager
def settings() -> Iterator[None]:
    """Our settings of matplotlib for the time being, whatever the caller's are.

    Raises
    ------
    ReportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ReportError("figures need matplotlib: pip install 'lawkit[report]'") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks: boxes in the PNG, text as ever in the SVG.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure, under our settings."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with settings():
            return function(*args, **kwargs)

    return wrapper


# ---- the page ---------------------------------------------------------------------------------------------------


def panels(count: int, height: float, columns: int = 3, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each `height` inches high, at most `columns` side by side."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs).ravel()
    for unused in axes[count:]:
        unused.remove()
    for ax in axes[:count][-columns:]:  # of shared axes the lowest have the numbers, also above a gap
        ax.tick_params(labelbottom=True)
    return figure, list(axes[:count])


def finish(
    figure: Figure,
    title: str,
    caption: Sequence[str],
    handles: Sequence[Any] = (),
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """Title and legend above the panels, what their axes share beside them, and the caption below.

    The page grows by what these need, and the panels keep their size. The layout is then fixed.
    """
    width, panel_height = figure.get_size_inches()
    pad = 0.08
    room = 72 * (width - 2 * pad) * 0.95  # drawn text is a little wider than its outlines
    title = wrapped(title, room, TITLE, bold=True)
    notes = "\n".join(wrapped(c, room, SMALL) for c in caption if c)
    line = {size: size * 1.32 / 72 for size in (SMALL, TEXT, TITLE)}
    columns = _legend_columns(handles, width)
    top = pad + (title.count("\n") + 1) * line[TITLE]
    legend = -(-len(handles) // columns) * line[TEXT] + 0.06 if handles else 0.0
    below = pad + ((notes.count("\n") + 1) * line[SMALL] + 0.04 if notes else 0.0)
    bottom = below + (line[TEXT] if xlabel else 0.0)
    left = line[TEXT] + 0.06 if ylabel else 0.0
    height = panel_height + top + legend + bottom
    figure.set_size_inches(width, height)
    figure.text(pad / width, 1 - 0.06 / height, title, ha="left", va="top", fontsize=TITLE, fontweight="bold")
    middle = (bottom + panel_height / 2) / height
    figure.text(0.5, below / height, xlabel, ha="center", va="bottom", fontsize=TEXT)
    figure.text(0.04 / width, middle, ylabel, ha="left", va="center", fontsize=TEXT, rotation="vertical")
    figure.text(pad / width, pad / height, notes, ha="left", va="bottom", fontsize=SMALL, color=GREY)
    if handles:
        by_row = [h for c in range(columns) for h in handles[c::columns]]  # matplotlib fills columns first
        figure.legend(
            handles=by_row, loc="upper left", bbox_to_anchor=(0.04 / width, 1 - top / height), ncols=columns,
            borderpad=0.3, borderaxespad=0.0, columnspacing=1.4, handlelength=2.6,
        )  # fmt: skip
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(left / width, bottom / height, 1 - left / width, panel_height / height))  # type: ignore[call-arg]
    # Laid out once and for all, in round numbers: each drawing would move things by a hair, and files would differ.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        x0, y0, wide, high = (round(v, 6) for v in ax.get_position().bounds)
        ax.set_position((x0, y0, wide, high))
    return figure


def _legend_columns(handles: Sequence[Any], width: float) -> int:
    """How many entries of a legend fit side by side, in rows as full as each other."""
    if not handles:
        return 1
    longest = max(text_width(h.get_label(), SMALL) for h in handles)
    most = max(1, min(len(handles), int((width - 0.1) * 72 / (longest + 38))))
    return -(-len(handles) // -(-len(handles) // most))


# ---- words and numbers ------------------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def called(name: str, most: int = 26) -> str:
    """A name as it is shown: on one line, and not longer than there is room for."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= most else f"{name[: most - 8]}…{name[-7:]}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(called(n) for n in names[:most]) + more


def text_width(text: str, points: float, bold: bool = False) -> float:
    """How long a line of text is, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def wrapped(text: str, room: float, points: float, bold: bool = False) -> str:
    """Text in lines of at most `room` points, as far as its words allow."""
    lines, blank = [""], text_width("n n", points, bold) - text_width("nn", points, bold)
    used = 0.0
    for word in text.split():
        long = text_width(word, points, bold)
        if lines[-1] and used + blank + long > room:
            lines.append("")
            used = 0.0
        used += long + (blank if lines[-1] else 0.0)
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def size(value: float) -> str:
    """7e9 as 7B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= unit * 0.9995:
            return f"{value / unit:.3g}{letter}" if value < 1e15 else power(value)
    return f"{value:.3g}"


def percent(weight: float) -> str:
    """A fraction in percent, to two figures or so."""
    return f"{100 * weight:.1f}%" if weight < 0.0995 else f"{100 * weight:.0f}%"


def power(value: float) -> str:
    """3e21 as 3·10²¹."""
    exponent = math.floor(math.log10(value) + 1e-9)
    ahead = f"{value / 10.0**exponent:.2g}"
    return ("" if ahead == "1" else f"{ahead}·") + "10" + str(exponent).translate(_SUPERSCRIPT)


def head(ax: Axes, name: str, note: str = "") -> None:
    """A panel's name, shortened to the room that the panel and the note beside it leave."""
    grid = ax.get_subplotspec()
    columns = 1 if grid is None else grid.get_gridspec().ncols
    room = 72 * WIDTH / columns - 28 - text_width(note, SMALL)
    most = len(name)
    while most > 9 and text_width(called(name, most), TEXT, bold=True) > room:
        most -= 1
    ax.set_title(called(name, most), loc="left", fontweight="bold", pad=3)
    ax.set_title(note, loc="right", fontsize=SMALL, color=GREY, pad=3)


def log_axis(ax: Axes, values: Sequence[float] | np.ndarray, write: Callable[[float], str]) -> None:
    """A logarithmic x axis over `values` with at most five or so numbers on it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    ax.set_xscale("log")
    low, high = float(np.min(values)), float(np.max(values))
    ax.set_xlim(low, high)
    decades = math.log10(high / low)
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if decades > 2.2:
        step = max(1, math.ceil((last - first + 1) / 4))
        ticks = [10.0**k for k in range(first, last + 1, step)]
    else:
        steps = (1, 2, 5) if decades > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
        ticks = [m * 10.0**k for k in range(first - 1, last + 1) for m in steps if low <= m * 10.0**k <= high]
        ticks = ticks[:: max(1, -(-len(ticks) // 4))]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: write(v)))
    ax.xaxis.set_minor_formatter(NullFormatter())
