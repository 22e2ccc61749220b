"""One look for all figures: colours, sizes, and the frame they are drawn in.

- A method has one colour and one marker in every figure (Okabe and Ito's palette, told apart by
  colour-blind readers); conditions (harmful, harmless) and verdicts draw from Paul Tol's muted palette,
  so that no condition is mistaken for a method. Surfaces and measures have one look of their own too,
  whatever else stands in the figure. Identity is never carried by colour alone.
- WIDTH is a page's text width and no text is below 9 pt, so a figure survives printing at half size.
- Figures are made without pyplot: nothing is kept in a global list, a notebook shows each once (as
  its cell's value), and a long run does not pile up memory. The font is the one matplotlib ships,
  so that a figure is the same on every machine.
- What a paper reports is drawn hollow or hatched, in a panel of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator

P = ParamSpec("P")

WIDTH = 6.5  # inches: the text width of a one-column page
FONT_SIZE = 9.0  # points at WIDTH: the smallest text of any figure

# Okabe and Ito (2008), reserved for methods, and beyond their eight the hues that lie farthest from all others in
# CIELAB to readers of normal, red-blind or green-blind sight. Fifteen cannot all be told apart by hue (the nearest
# two are 7 apart): the marker tells them.
METHOD_COLOURS = {
    "Orig.": "#4D4D4D",
    "Steer": "#E69F00",
    "AutoSteer": "#0072B2",
    "MARS": "#D55E00",
    "SafeSteer": "#009E73",
    "ECSO": "#CC79A7",
    "CoCA": "#56B4E9",
    "AdaSteer": "#66CC66",
    "MLLM-Protector": "#8C564B",
    "Activation transfer": "#7B4FA3",
    "K-Steering": "#1B7837",
    "Refusal direction": "#A50F15",
    "CAST": "#4444EE",
    "AdaShield-S": "#220044",
    "Self-reminder": "#EEAA66",
}
METHOD_MARKERS = {
    "Orig.": "o", "Steer": "s", "AutoSteer": "D", "MARS": "^", "SafeSteer": "v", "ECSO": "P", "CoCA": "X",
    "AdaSteer": "<", "MLLM-Protector": ">", "Activation transfer": "h", "K-Steering": "*", "Refusal direction": "p",
    "CAST": "d", "AdaShield-S": "8", "Self-reminder": "H",
}  # fmt: skip
# Methods that only papers report: grey, and told apart by these.
REPORTED_MARKERS = {"SASA": "x", "MRD": "+"}
# Paul Tol, "muted": for conditions and verdicts.
HARMFUL, HARMLESS = "#882255", "#44AA99"
VERDICT_COLOURS = {"unsafe": "#882255", "refused": "#332288", "safe": "#117733", "off topic": "#777777"}
# Tol, "muted" and "bright", and black for text: where a surface is a line or a hue. Chosen so that no two come
# closer than 16 in CIELAB to readers of normal, red-blind or green-blind sight (measured; Machado's matrices).
SURFACE_COLOURS = {
    "text": "#000000",
    "jailbreak": "#6699CC",
    "image": "#332288",
    "typographic": "#CC6677",
    "words": "#661100",
    "both": "#AA4499",
    "combination": "#228833",
    "video": "#EE8866",
}
SURFACE_MARKERS = {
    "text": "o", "jailbreak": "s", "image": "D", "typographic": "^", "words": "v", "both": "P", "combination": "X",
    "video": "<",
}  # fmt: skip
# What MARS measures of one setting: refusals that are wanted, refusals that are not, and what must not change.
MEASURE_COLOURS = {"harmful refused": HARMFUL, "harmless refused": HARMLESS, "utility": "#999933"}
MEASURE_MARKERS = {"harmful refused": "o", "harmless refused": "s", "utility": "^"}
NEUTRAL = "#666666"
LIGHT = "#D9D9D9"
SEQUENTIAL = "viridis"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 0.5,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": NEUTRAL,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "xtick.color": NEUTRAL,
    "ytick.color": NEUTRAL,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.fontsize": FONT_SIZE,
    "legend.title_fontsize": FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
}


class PaperFigure(Figure):
    """A Figure that shows itself in a notebook, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        return buffer.getvalue()


def new_figure(height: float, *, width: float = WIDTH) -> PaperFigure:
    """An empty figure of the house's width; its axes are arranged by constrained layout."""
    return PaperFigure(figsize=(width, height), layout="constrained")


def headline(figure: Figure, text: str) -> None:
    """One line over all panels, of a figure without a legend there: which model was measured. None without text."""
    if text:
        figure.suptitle(text, x=0.01, ha="left", fontsize=FONT_SIZE + 0.5)


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under STYLE without changing the caller's rcParams."""

    @functools.wraps(plot)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return plot(*args, **kwargs)

    return inner


def method_colour(method: str) -> str:
    """The method's own colour. An unknown method gets neutral grey rather than another's colour."""
    return METHOD_COLOURS.get(method, "#999999")


def method_marker(method: str) -> str:
    return (METHOD_MARKERS | REPORTED_MARKERS).get(method, ".")


def marker_size(method: str) -> float:
    """Points, in a plane of methods. Strokes reach further than filled markers, one of which may lie on the same point."""
    return 10.0 if method in REPORTED_MARKERS else 7.0


def in_house_order(methods: Iterable[str]) -> list[str]:
    """Known methods in the palette's order (the undefended model first), then the others as they come."""
    present = list(dict.fromkeys(methods))
    return [name for name in METHOD_COLOURS if name in present] + [
        name for name in present if name not in METHOD_COLOURS
    ]


def measures_in_order(measures: Iterable[str]) -> list[str]:
    """The measures that are present, wanted refusals first."""
    present = set(measures)
    unknown = sorted(present - set(MEASURE_COLOURS))
    if unknown:
        raise ValueError(f"measure {unknown} is not known; allowed: {list(MEASURE_COLOURS)}")
    return [name for name in MEASURE_COLOURS if name in present]


def verdict_colour(verdict: str) -> str:
    return VERDICT_COLOURS.get(verdict, NEUTRAL)


def tint(colour: str, *, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white; strength 1 is the colour itself."""
    red, green, blue = (1 - strength + strength * part for part in to_rgb(colour))
    return red, green, blue


def require(frame: pd.DataFrame, columns: Sequence[str], *, figure: str) -> None:
    """Say at once which columns a figure lacks."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{figure} needs the columns {list(columns)}; missing: {missing}; received: {list(frame.columns)}"
        )
    if frame.empty:
        raise ValueError(f"{figure} received an empty table: nothing to draw")


def one_row_each(frame: pd.DataFrame, keys: Sequence[str], *, figure: str) -> None:
    """Refuse a table that would draw two rows at one place."""
    twice = frame[frame.duplicated(list(keys))]
    if len(twice):
        raise ValueError(
            f"{figure} needs one row for each {', '.join(keys)}; received several for "
            f"{', '.join(str(twice.iloc[0][key]) for key in keys)}: choose among the table's other columns first"
        )


def percent_axis(
    axes: Axes,
    *,
    which: str = "y",
    label: str,
    bottom: float = 0.0,
    highest: float = 1.0,
    least: float = 0.25,
) -> None:
    """Show an axis of shares in percent, with room for a marker at both ends.

    It ends at 100, 50 or 25 %, the least of these that holds `highest`, so that panels stay comparable; where `least`
    allows it, at 10 or 5 %.
    """
    axis = axes.yaxis if which == "y" else axes.xaxis
    steps = {0.05: 0.01, 0.1: 0.02, 0.25: 0.05, 0.5: 0.1, 1.0: 0.25}
    top = min(end for end in steps if end >= max(min(highest, 1.0), least))
    step = steps[top]
    ticks = np.arange(np.ceil(bottom / step) * step, top + 1e-9, step)
    margin = 0.03 * (top - bottom)
    (axes.set_ylim if which == "y" else axes.set_xlim)(bottom - margin, top + margin)
    axis.set_ticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
    axis.set_label_text(label)
    axes.grid(True, axis="y" if which == "y" else "x")


def line_with_band(
    axes: Axes,
    line: pd.DataFrame,
    *,
    x: str,
    y: str,
    colour: str,
    marker: str,
    hollow: bool = False,
    label: str = "",
) -> None:
    """Draw one line with its band (columns low, high), if it has one; hollow and dashed for a paper's numbers."""
    line = line.sort_values(x)
    if {"low", "high"} <= set(line.columns):
        axes.fill_between(
            line[x].to_numpy(dtype=float),
            line["low"].to_numpy(dtype=float),
            line["high"].to_numpy(dtype=float),
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axes.plot(
        line[x], line[y], label=label, color=colour, marker=marker, markersize=4.5, markeredgewidth=1.2,
        markerfacecolor="white" if hollow else colour, linestyle="--" if hollow else "-",
        linewidth=1.0 if hollow else 1.6,
    )  # fmt: skip


def surface_panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A panel a surface. Utility belongs to no surface, so its rows stand in every panel."""
    if "surface" not in table:
        return [("", table)]
    of_surface = table[table["measure"] != "utility"]
    return [
        (str(surface), table[(table["surface"] == surface) | (table["measure"] == "utility")])
        for surface in dict.fromkeys(of_surface["surface"])
    ]


def layer_axis(axes: Axes, layers: Iterable[float | int]) -> None:
    """Whole layers only: each of them where there is room for its number, else a few."""
    every = sorted(set(layers))
    axes.xaxis.set_major_locator(
        FixedLocator(every) if len(every) <= 8 else MaxNLocator(nbins="auto", integer=True)
    )


def sample_size(table: pd.DataFrame) -> str:
    """ "n = 120", or the least and the most where rows differ."""
    least, most = int(table["n"].min()), int(table["n"].max())
    return f"n = {least}" if least == most else f"n = {least}–{most}"


class _HangingLabels(ConstrainedLayoutEngine):
    """Constrained layout that leaves no room for the x labels of some panels."""

    def __init__(self, panels: Sequence[Axes]) -> None:
        super().__init__()
        self._panels = panels

    def execute(self, fig: Figure) -> Any:
        for axes in self._panels:
            axes.xaxis.set_visible(False)
        try:
            return super().execute(fig)
        finally:
            for axes in self._panels:
                axes.xaxis.set_visible(True)


@dataclass(frozen=True)
class Panel:
    """One of several panels of a figure."""

    axes: Axes
    leftmost: bool
    """Where what all panels of a row share is written once."""
    lowest: bool
    """No panel stands below it: where what a column shares is written."""


def small_multiples(
    count: int,
    *,
    columns: int,
    head: float,
    row: float,
    width: float = WIDTH,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[PaperFigure, list[Panel]]:
    """A figure of so many panels, at most `columns` beside each other; it is `head` + `row` inches a row high.

    Where the grid is not full, x labels above the gap hang into it; else they would push the rows apart.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(head + row * rows, width=width)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    if count % columns:
        figure.set_layout_engine(_HangingLabels(list(grid[count - columns : count - count % columns])))
    return figure, [Panel(grid[i], i % columns == 0, i + columns >= count) for i in range(count)]
