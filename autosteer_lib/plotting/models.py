"""The same rates of several models, a panel each: the measured ones, and below them what a paper reports of theirs.

Panels share their scale, so that a model is compared with its neighbour, and a measured panel with the reported one
below it only in shape: that is another model on other sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.rates import ROW_HEIGHT, rate_panel
from autosteer_lib.plotting.style import (
    in_house_order,
    layer_axis,
    line_with_band,
    method_colour,
    method_marker,
    new_figure,
    percent_axis,
    require,
    styled,
)
from autosteer_lib.plotting.sweeps import mark_value, series_looks

PANEL_HEIGHT = 2.3  # inches of a panel of lines


@styled
def rates_of_models(
    rates: pd.DataFrame, *, label: str = "attack success rate (%)", reported: pd.DataFrame | None = None
) -> Figure:
    """Draw one dot a surface and defence, in a column a model.

    Args:
        rates: columns model, surface, defence, rate, and optionally low, high (of [0, 1]).
        label: of the x axes, with its unit.
        reported: the same columns, of as many models, from a paper.
    """
    tables = [rates] if reported is None else [rates, reported]
    for table in tables:
        require(table, ["model", "surface", "defence", "rate"], figure="rates_of_models")
    columns = [_models(table) for table in tables]
    if len({len(models) for models in columns}) > 1:
        raise ValueError(
            f"rates_of_models: {len(columns[0])} models are measured and {len(columns[1])} reported; "
            "give the same number, in the same order"
        )
    methods = in_house_order(name for table in tables for name in table["defence"])
    heights = [
        0.6 + max(part["surface"].nunique() for _, part in table.groupby("model")) * ROW_HEIGHT * len(methods)
        for table in tables
    ]
    figure = new_figure(0.4 + sum(heights))
    grid = figure.subplots(len(tables), len(columns[0]), squeeze=False, height_ratios=heights)
    for row, (table, models) in enumerate(zip(tables, columns, strict=True)):
        said = "reported" if row else "measured here"
        for axes, model in zip(grid[row], models, strict=True):
            part = table[table["model"] == model]
            rate_panel(axes, part, methods=methods, hollow=bool(row), title=f"{said}: {model}", label=label)
    handles = [
        Line2D([], [], marker=method_marker(name), color=method_colour(name), linestyle="", label=name)
        for name in methods
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(methods), 5), handletextpad=0.2)
    return figure


@styled
def lines_of_models(
    table: pd.DataFrame,
    *,
    x: str,
    x_label: str,
    y_label: str = "rate (%)",
    chosen: float | int | None = None,
    chosen_label: str = "",
    reported: pd.DataFrame | None = None,
) -> Figure:
    """Draw rates over a swept quantity, in a column a model.

    Args:
        table: columns model, <x>, series, rate, and optionally low, high (of [0, 1]).
        x: the swept column; whole numbers are taken for layers.
        x_label: its label, with its unit.
        y_label: label of the y axis.
        chosen: a value that all models share, marked.
        chosen_label: written at that mark.
        reported: the same columns, of as many models, from a paper.
    """
    tables = [table] if reported is None else [table, reported]
    for one in tables:
        require(one, ["model", x, "series", "rate"], figure="lines_of_models")
    columns = [_models(one) for one in tables]
    if len({len(models) for models in columns}) > 1:
        raise ValueError(
            f"lines_of_models: {len(columns[0])} models are measured and {len(columns[1])} reported; "
            "give the same number, in the same order"
        )
    names = list(dict.fromkeys(name for one in tables for name in one["series"]))
    looks = series_looks(names)
    figure = new_figure(0.4 + PANEL_HEIGHT * len(tables))
    grid = figure.subplots(len(tables), len(columns[0]), squeeze=False, sharey=True)
    for row, (one, models) in enumerate(zip(tables, columns, strict=True)):
        for column, (axes, model) in enumerate(zip(grid[row], models, strict=True)):
            part = one[one["model"] == model]
            for name, line in part.groupby("series", sort=False):
                colour, marker = looks[str(name)]
                line_with_band(
                    axes, line, x=x, y="rate", colour=colour, marker=marker, hollow=bool(row), label=str(name)
                )
            _frame(axes, part, x=x, x_label=x_label, y_label="" if column else y_label)
            axes.set_title(f"{'reported' if row else 'measured here'}: {model}")
            if chosen is not None:
                mark_value(axes, chosen, chosen_label or f"{chosen:g}")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4), handlelength=1.8)
    return figure


def _models(table: pd.DataFrame) -> Sequence[str]:
    return list(dict.fromkeys(str(model) for model in table["model"]))


def _frame(axes: Axes, part: pd.DataFrame, *, x: str, x_label: str, y_label: str) -> None:
    if (part[x] % 1 == 0).all():
        layer_axis(axes, part[x])
    percent_axis(axes, label=y_label)
    axes.set_xlabel(x_label)
