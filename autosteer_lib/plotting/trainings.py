"""The same rates on several trainings of one model: does the order of methods belong to one set of weights?

A row a method, in it a dot a training with its interval, one below the other, the training's number beside it; the
shipped training is filled, the others are hollow.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    NEUTRAL,
    in_house_order,
    method_colour,
    method_marker,
    one_row_each,
    percent_axis,
    require,
    small_multiples,
    styled,
)

SHIPPED = 0
_SPREAD = 0.62  # of a row's height that its trainings take, so that rows stay apart
_DOT_HEIGHT = 0.14  # inches a training: its number in 9 pt


@styled
def rates_of_trainings(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw a panel a measure, a row a method, a dot a training.

    Args:
        table: columns panel (the x label, with its unit), defence, training, rate, low, high (of [0, 1]).
        title: says which model was trained.
    """
    require(table, ["panel", "defence", "training", "rate", "low", "high"], figure="rates_of_trainings")
    one_row_each(table, ["panel", "defence", "training"], figure="rates_of_trainings")
    methods, trainings = in_house_order(table["defence"]), sorted(table["training"].unique().tolist())
    names = list(dict.fromkeys(table["panel"]))
    row = 0.6 + len(methods) * (0.12 + _DOT_HEIGHT * len(trainings))
    figure, panels = small_multiples(len(names), columns=2, head=0.5, row=row, sharey=True)
    for panel, name in zip(panels, names, strict=True):
        _draw(panel.axes, table[table["panel"] == name], methods=methods, trainings=trainings)
        percent_axis(panel.axes, which="x", label=name)
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "color": NEUTRAL}
    others = ", ".join(str(one) for one in trainings if one != SHIPPED)
    handles = [
        Line2D([], [], label=f"training {SHIPPED}, the shipped one", **dot),
        Line2D([], [], markerfacecolor="white", label=f"other trainings: {others}", **dot),
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=2,
        handletextpad=0.2,
        title=title or None,
        alignment="left",
    )
    return figure


def _draw(axes: Axes, table: pd.DataFrame, *, methods: list[str], trainings: list[int]) -> None:
    step = _SPREAD / max(1, len(trainings) - 1)
    places = {
        (method, training): row + step * index - _SPREAD / 2
        for row, method in enumerate(methods)
        for index, training in enumerate(trainings)
    }
    for row in table.to_dict("records"):
        y, colour = places[row["defence"], row["training"]], method_colour(row["defence"])
        axes.hlines(y, row["low"], row["high"], color=colour, linewidth=1.0, alpha=0.6)
        axes.plot(
            [row["rate"]], [y], linestyle="", marker=method_marker(row["defence"]), color=colour, markersize=5,
            markeredgewidth=1.2, markerfacecolor=colour if row["training"] == SHIPPED else "white",
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), methods)
    axes.set_yticks(list(places.values()), [str(training) for _, training in places], minor=True)
    axes.yaxis.remove_overlapping_locs = False  # the middle training stands level with the method's name
    axes.tick_params(axis="y", length=0, pad=18)  # the methods' names, left of the trainings' numbers
    axes.tick_params(axis="y", which="minor", length=2, pad=2, labelcolor=NEUTRAL)
    for boundary in range(1, len(methods)):
        axes.axhline(boundary - 0.5, color="#E6E6E6", linewidth=0.8)
    axes.set_ylim(len(methods) - 0.5, -0.5)
