"""How many answers a rate is over, read off its digits: for every n, how many of the printed rates n answers can give.

A true n gives nearly all of them, any other about as many as chance; so it stands out as one point.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import HARMFUL, NEUTRAL, new_figure, require, styled


@styled
def cells_by_size(table: pd.DataFrame, *, expected: int, expected_label: str = "expected") -> Figure:
    """Draw the cells that each n can give.

    Args:
        table: columns n, possible, by_chance, cells.
        expected: the number of answers that the set's size tells.
        expected_label: what to call it.
    """
    require(table, ["n", "possible", "by_chance", "cells"], figure="cells_by_size")
    figure = new_figure(2.7)
    axes = figure.subplots()
    axes.vlines(table["n"], 0, table["possible"], color="#BBBBBB", linewidth=0.5)
    axes.plot(table["n"], table["by_chance"], color=NEUTRAL, linestyle="--", linewidth=1.2, label="by chance")
    best = table.iloc[int(table["possible"].to_numpy().argmax())]
    other = table[table["n"] == expected].iloc[0]
    right = float(table["n"].max())
    margin = 0.015 * (right - float(table["n"].min()))
    for row, colour, marker, name, lift in (
        (best, HARMFUL, "o", "best", 0),
        (other, "black", "s", expected_label, 16),  # above the crowd of other n
    ):
        axes.plot(row["n"], row["possible"], color=colour, marker=marker, linestyle="")
        text = f"{name}: n = {int(row['n'])}, {int(row['possible'])} of {int(row['cells'])}"
        height = row["possible"] + lift
        if lift:  # it ends at the frame: further left the line of the best n would cross it
            axes.vlines(row["n"], row["possible"], height - 1.5, color=colour, linewidth=0.8)
        place = right + 3 * margin if lift else row["n"] - margin
        axes.text(place, height, text, ha="right", va="center", color=colour)
    axes.set_ylim(0, float(table["cells"].max()) + 2)
    axes.set_xlabel("answers a subset, n")
    axes.set_ylabel("printed rates that n can give")
    axes.legend(loc="upper left")
    return figure
