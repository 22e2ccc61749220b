"""The same rates on several trainings of one model: does the order of methods belong to one set of weights?

A row a method, in it a dot a training with its interval, one below the other; the shipped training is filled, the
others are hollow.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    NEUTRAL,
    grid_shape,
    in_house_order,
    method_colour,
    method_marker,
    new_figure,
    one_row_each,
    percent_axis,
    require,
    styled,
)

SHIPPED = 0
_SPREAD = 0.56  # of a row's height that its trainings take, so that rows stay apart
_DOT_HEIGHT = 0.12  # inches a training


@styled
def rates_of_trainings(table: pd.DataFrame) -> Figure:
    """Draw a panel a measure, a row a method, a dot a training.

    Args:
        table: columns panel (the x label, with its unit), defence, training, rate, low, high (of [0, 1]).
    """
    require(table, ["panel", "defence", "training", "rate", "low", "high"], figure="rates_of_trainings")
    one_row_each(table, ["panel", "defence", "training"], figure="rates_of_trainings")
    methods, trainings = in_house_order(table["defence"]), sorted(table["training"].unique().tolist())
    panels = list(dict.fromkeys(table["panel"]))
    rows, columns = grid_shape(len(panels), columns=2)
    figure = new_figure(0.5 + rows * (0.6 + len(methods) * (0.12 + _DOT_HEIGHT * len(trainings))))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, table[table["panel"] == panel], methods=methods, trainings=trainings)
        percent_axis(axes, which="x", label=panel)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], linestyle="", marker="o", color=NEUTRAL, label="the shipped training"),
        Line2D(
            [], [], linestyle="", marker="o", color=NEUTRAL, markerfacecolor="white", label="other trainings"
        ),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.2)
    return figure


def _draw(axes: Axes, table: pd.DataFrame, *, methods: list[str], trainings: list[int]) -> None:
    step = _SPREAD / max(1, len(trainings) - 1)
    for row in table.to_dict("records"):
        y = methods.index(row["defence"]) + step * trainings.index(row["training"]) - _SPREAD / 2
        colour = method_colour(row["defence"])
        axes.hlines(y, row["low"], row["high"], color=colour, linewidth=1.0, alpha=0.6)
        axes.plot(
            [row["rate"]], [y], linestyle="", marker=method_marker(row["defence"]), color=colour, markersize=5,
            markeredgewidth=1.2, markerfacecolor=colour if row["training"] == SHIPPED else "white",
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
