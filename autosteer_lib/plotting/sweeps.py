"""Rates as one quantity is swept: ε (AutoSteer's Fig. 6 and 8), and τ, prober width or number of pairs,
which the paper does not sweep.

A line with its 95 % band; the value that was used is marked. What a paper reports goes into a panel of its
own, hollow and dashed: points read off its figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import (
    LIGHT,
    MEASURE_COLOURS,
    MEASURE_MARKERS,
    METHOD_COLOURS,
    METHOD_MARKERS,
    NEUTRAL,
    SURFACE_COLOURS,
    SURFACE_MARKERS,
    layer_axis,
    line_with_band,
    new_figure,
    percent_axis,
    require,
    styled,
)  # fmt: skip

# Groups of prompts keep their look from one sweep to the next; harmless ones never take the colour of harm.
GROUP_LOOKS = {
    "attacks": ("#882255", "o"),
    "harm in words": ("#882255", "o"),
    "harm that must be seen": ("#332288", "D"),
    "harmless twins": ("#44AA99", "s"),
    "borderline": ("#AA4499", "v"),
}
# For series with no look of their own (outcomes, models): condition colours, then more of Tol's.
SERIES_COLOURS = ("#882255", "#44AA99", "#332288", "#999933", "#AA4499", "#117733", "#CC6677")
SERIES_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SHORT = 15  # letters: four names of so many stand beside each other in a page's width


@styled
def asr_over_epsilon(
    rates: pd.DataFrame,
    *,
    reported: pd.DataFrame | None = None,
    epsilon: float | int | None = 0.1,
    title: str = "measured here",
    reported_title: str = "reported by the paper, read off its figure",
    label: str = "attack success rate (%)",
) -> Figure:
    """Draw ASR over the steering strength, always on.

    Args:
        rates: columns epsilon, rate, low, high (of [0, 1]); optionally series, else it is Steer's.
        reported: columns epsilon, rate; optionally series (a model).
        epsilon: the strength that was used, marked; None marks nothing.
        title: says which model was measured.
        reported_title: says whose numbers, and how they were read.
        label: of the y axis, with its unit.
    """
    tables = [_with_series(rates, "Steer", ["epsilon", "rate", "low", "high"])]
    if reported is not None:
        tables.append(_with_series(reported, "Steer", ["epsilon", "rate"]))
    figure = new_figure(2.6, width=6.5 if reported is not None else 4.2)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, table, hollow in zip(panels, tables, (False, True), strict=False):
        _lines(axes, table, x="epsilon", hollow=hollow)
        percent_axis(axes, label=label if axes is panels[0] else "")
        axes.set_xlabel("steering strength ε")
        axes.set_title(reported_title if hollow else title)
        if epsilon is not None:
            mark_value(axes, epsilon, f"ε = {epsilon:g}")
    if tables[0]["series"].nunique() > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.6)
    return figure


@styled
def sweep(
    rates: pd.DataFrame,
    *,
    x: str,
    x_label: str,
    y_label: str = "rate (%)",
    log: bool = False,
    chosen: float | int | None = None,
    chosen_label: str = "",
) -> Figure:
    """Draw one or more rates over a swept quantity.

    Args:
        rates: columns <x>, series, rate, low, high (rates of [0, 1]); one line a series.
        x: the swept column.
        x_label: its label, with its unit.
        y_label: label of the y axis.
        log: logarithmic x axis, for widths and counts.
        chosen: the value used elsewhere, marked.
        chosen_label: written at that mark.
    """
    table = _with_series(rates, "rate", [x, "rate", "low", "high"])
    if log and (table[x] <= 0).any():
        raise ValueError(
            f"a logarithmic axis has no place for {x} ≤ 0, received {sorted(table[x].unique())[:3]} …"
        )
    figure = new_figure(2.7, width=6.5)
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
        ticks = np.unique(table[x])
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    elif (table[x] % 1 == 0).all():
        layer_axis(axes, table[x])
    _lines(axes, table, x=x, hollow=False)
    percent_axis(axes, label=y_label, highest=float(table[["rate", "high"]].to_numpy().max()))
    axes.set_xlabel(x_label)
    if chosen is not None:
        mark_value(axes, chosen, chosen_label or f"{chosen:g}", above=True)
    handles, labels = axes.get_legend_handles_labels()
    room = 4 if max(map(len, labels)) <= SHORT else 3
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), room), handlelength=1.8)
    return figure


@styled
def lines_by_layer(table: pd.DataFrame, *, y: str, y_label: str, series: str = "series") -> Figure:
    """Draw a quantity over layers, one line a series.

    Args:
        table: columns layer, <y>, <series>.
        y: the quantity's column.
        y_label: its label, with its unit.
        series: the column that tells lines apart.
    """
    require(table, ["layer", y, series], figure="lines_by_layer")
    figure = new_figure(2.7)
    axes = figure.subplots()
    _lines(axes, table.rename(columns={y: "rate", series: "series"}), x="layer", hollow=False)
    axes.axhline(0, color=LIGHT, linewidth=1.0, zorder=0)
    axes.set_xticks(sorted(table["layer"].unique()))
    axes.set_xlabel("layer (input of decoder block)")
    axes.set_ylabel(y_label)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4), handlelength=1.8)
    return figure


def _with_series(table: pd.DataFrame, name: str, columns: list[str]) -> pd.DataFrame:
    require(table, columns, figure="a sweep")
    return table if "series" in table else table.assign(series=name)


def _lines(axes: Axes, table: pd.DataFrame, *, x: str, hollow: bool) -> None:
    names = list(dict.fromkeys(table["series"]))
    looks = series_looks(names)
    for name in names:
        colour, marker = looks[name]
        line_with_band(
            axes,
            table[table["series"] == name],
            x=x,
            y="rate",
            colour=colour,
            marker=marker,
            hollow=hollow,
            label=name,
        )


def series_looks(names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Methods, surfaces, measures and groups keep their look; other series take what is left of the condition palette."""
    colours = METHOD_COLOURS | SURFACE_COLOURS | MEASURE_COLOURS
    markers = METHOD_MARKERS | SURFACE_MARKERS | MEASURE_MARKERS
    known = GROUP_LOOKS | {name: (colours[name], markers[name]) for name in colours}
    looks = {name: known[name] for name in names if name in known}
    taken = {colour for colour, _ in looks.values()}
    free = [look for look in zip(SERIES_COLOURS, SERIES_MARKERS, strict=True) if look[0] not in taken]
    others = [name for name in names if name not in known]
    if len(others) > len(free):
        raise ValueError(f"{len(others)} series are too many for one panel; draw at most {len(free)}")
    return looks | dict(zip(others, free, strict=False))


def mark_value(axes: Axes, value: float | int, text: str, *, above: bool = False) -> None:
    """A dotted line with its name beside it, or above the panel where no title stands: there no curve crosses it."""
    axes.axvline(value, color=NEUTRAL, linewidth=1.0, linestyle=":", zorder=0)
    axes.annotate(
        text, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2) if above else (4, -2),
        textcoords="offset points", va="bottom" if above else "top", ha="center" if above else "left", color=NEUTRAL,
    )  # fmt: skip
