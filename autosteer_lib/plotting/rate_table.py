"""Many methods on many sets: a rate in every cell, as a colour and as a number.

A row a method, a column a set, a panel a group of sets. With a dozen methods dots would lie on each other; a table is
read in both directions. Colour runs from white (0) to the hue of what is unwanted, so the eye finds what a method
leaves; where a high rate is wanted (utility) it runs the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import (
    HARMFUL,
    NEUTRAL,
    WIDTH,
    headline,
    in_house_order,
    new_figure,
    one_row_each,
    require,
    sample_size,
    styled,
)

Better: TypeAlias = Literal["lower", "higher"]
ROW, COLUMN = 0.24, 0.5  # inches: a number of three digits in 9 pt with air around it
NARROW = 0.3  # inches: the same number, its neighbours told apart by the white between the cells
LABELS, GAP = 1.35, 0.15  # inches: the longest method's name, and between panels
LETTERS = 15  # of a title, in an inch


@styled
def rate_table(
    rates: pd.DataFrame, *, better: Mapping[str, Better], panel: str = "panel", title: str = ""
) -> Figure:
    """Draw one cell a method and set.

    Args:
        rates: columns surface, defence, rate (of [0, 1]) and the panel's; order of surfaces and panels kept;
            optionally n, said above: a cell has no room for an interval.
        better: panel → which end is good.
        panel: the column that tells panels apart.
        title: says which model was measured.
    """
    require(rates, ["surface", "defence", "rate", panel], figure="rate_table")
    one_row_each(rates, ["surface", "defence", panel], figure="rate_table")
    names = list(dict.fromkeys(rates[panel]))
    unknown = [name for name in names if name not in better]
    if unknown:
        raise ValueError(
            f"rate_table: better says nothing of panel {unknown[0]!r}; it has {list(better)}; give 'lower' or 'higher'"
        )
    methods = in_house_order(rates["defence"])
    columns = [rates.loc[rates[panel] == name, "surface"].nunique() for name in names]
    # A figure wider than a page is shrunk on it, and its numbers with it: cells give way first, then panels go below.
    side = (WIDTH - LABELS - GAP * len(names)) / sum(columns)
    beside = side >= NARROW
    across = sum(columns) if beside else max(columns)
    column = min(COLUMN, side if beside else max(NARROW, (WIDTH - LABELS - GAP) / across))
    figure = new_figure(
        (1.5 + ROW * len(methods)) * (1 if beside else len(names)),
        width=max(LABELS + column * across + GAP * (len(names) if beside else 1), 4.0),
    )
    if beside:
        panels = figure.subplots(1, len(names), squeeze=False, sharey=True, width_ratios=columns).ravel()
    else:
        panels = figure.subplots(len(names), 1, squeeze=False).ravel()
    for axes, name, wide in zip(panels, names, columns, strict=True):
        _panel(axes, rates[rates[panel] == name], methods, better=better[name])
        room = int(LETTERS * column * (wide if beside else across))
        axes.set_title(f"{fill(name, max(12, room))}\n({better[name]} is better)")
        if not beside or axes is panels[0]:
            axes.set_yticks(range(len(methods)), methods)
    size = f"{sample_size(rates)} a cell" if "n" in rates else ""
    headline(figure, ", ".join(part for part in (title, size) if part))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, methods: list[str], *, better: Better) -> None:
    surfaces = list(dict.fromkeys(table["surface"]))
    cells = table.pivot(index="defence", columns="surface", values="rate").reindex(methods)[surfaces]
    values = cells.to_numpy(dtype=float)
    hue = LinearSegmentedColormap.from_list("unwanted", ["#FFFFFF", HARMFUL])
    unwanted = values if better == "lower" else 1 - values
    axes.imshow(unwanted, cmap=hue, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        dark = unwanted[row, column] > 0.55
        axes.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", color="white" if dark else "black"
        )
    axes.set_xticks(range(len(surfaces)), surfaces, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(surfaces) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(methods) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="minor", length=0)
    axes.axhline(0.5, color=NEUTRAL, linewidth=0.8)  # below the undefended model, which is the first row
    axes.spines[:].set_visible(False)
