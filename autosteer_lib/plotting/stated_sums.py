"""What a paper states as a sum of its own cells, beside what the cells give: one row a sum that does not agree.

A bar is all that the rounding of the cells allows (mostly narrower than the marker); the hollow marker is what stands
in the paper.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import HARMFUL, LIGHT, new_figure, require, styled

ROW_HEIGHT = 0.25  # inches


@styled
def stated_against_cells(table: pd.DataFrame, *, label: str = "percent, points or times") -> Figure:
    """Draw stated and recomputed values.

    Args:
        table: columns paper, where, what, stated (a number or its text), low, high.
        label: of the x axis.
    """
    require(table, ["paper", "where", "what", "stated", "low", "high"], figure="stated_against_cells")
    figure = new_figure(0.9 + ROW_HEIGHT * len(table))
    axes = figure.subplots()
    places = np.arange(len(table))
    stated = table["stated"].astype(float).to_numpy()
    middle = ((table["low"] + table["high"]) / 2).to_numpy()
    axes.hlines(places, np.minimum(stated, middle), np.maximum(stated, middle), color=LIGHT, linewidth=3)
    axes.hlines(places, table["low"], table["high"], color=HARMFUL, linewidth=3)
    axes.plot(middle, places, linestyle="", marker="|", markersize=9, markeredgewidth=2, color=HARMFUL)
    axes.plot(
        stated, places, linestyle="", marker="o", markerfacecolor="white", markeredgecolor="black", zorder=3
    )
    columns = zip(table["paper"], table["where"], table["what"], strict=True)
    axes.set_yticks(places, [f"{paper}, {where}: {what}" for paper, where, what in columns])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.grid(True, axis="x")
    axes.set_xlabel(label)
    handles = [
        Line2D([], [], marker="o", linestyle="", markerfacecolor="white", color="black", label="as printed"),
        Line2D([], [], marker="|", markersize=9, markeredgewidth=2, linestyle="", color=HARMFUL, label="by its cells"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure
