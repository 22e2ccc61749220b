"""By how much a stated sum differs from what its own cells give: one row a sum that does not agree.

A bar goes from 0, what the cells give, to what is printed; beside it stand both numbers. Its end is as wide as the
rounding of the cells allows, mostly less than the dot.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import HARMFUL, NEUTRAL, new_figure, require, styled

ROW_HEIGHT = 0.25  # inches


@styled
def stated_against_cells(
    table: pd.DataFrame,
    *,
    label: str = "printed less what its cells give\n(points; multiples where × stands)",
) -> Figure:
    """Draw the differences.

    Args:
        table: columns paper, where, what, rule ("multiple" or one whose unit is a point), stated (a number or its text),
            low, high.
        label: of the x axis.
    """
    require(table, ["paper", "where", "what", "rule", "stated", "low", "high"], figure="stated_against_cells")
    figure = new_figure(0.7 + ROW_HEIGHT * len(table))
    axes = figure.subplots()
    places = np.arange(len(table))
    stated = table["stated"].astype(float).to_numpy()
    low, high = table["low"].to_numpy(), table["high"].to_numpy()
    middle = (low + high) / 2
    axes.hlines(places, 0, stated - middle, color=HARMFUL, linewidth=1.4, alpha=0.75)
    axes.hlines(places, stated - high, stated - low, color=HARMFUL, linewidth=4)
    axes.plot(stated - middle, places, linestyle="", marker="o", color=HARMFUL, zorder=3)
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    signs = ["×" if rule == "multiple" else "" for rule in table["rule"]]
    for place, text, sign, given, end in zip(
        places, table["stated"], signs, middle, stated - middle, strict=True
    ):
        digits = len(str(text).partition(".")[2])
        axes.annotate(
            f"{sign}{text} for {sign}{given:.{digits + 1}f}", (max(end, 0.0), place), xytext=(8, 0),
            textcoords="offset points", va="center", color=NEUTRAL, annotation_clip=False,
        )  # fmt: skip
    columns = zip(table["paper"], table["where"], table["what"], strict=True)
    axes.set_yticks(places, [f"{paper}, {where}: {what}" for paper, where, what in columns])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(table) - 0.5, -0.5)
    reach = float(np.abs(stated - middle).max())
    axes.set_xlim(-1.1 * reach, 1.4 * reach)
    axes.set_xlabel(label)
    return figure
