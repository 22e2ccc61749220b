"""The same rates of several models, a panel each: the measured ones, and below them what a paper reports of theirs.

Panels share their scale, so that a model is compared with its neighbour, and a measured panel with the reported one
below it only in shape: that is another model on other sets. A paper may report more models than are measured, or fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

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
LINE_HEIGHT = 0.19  # inches a line of a label, with air to the next label


@styled
def rates_of_models(
    rates: pd.DataFrame, *, label: str = "attack success rate (%)", reported: pd.DataFrame | None = None
) -> Figure:
    """Draw one dot a surface and defence, in a column a model.

    Args:
        rates: columns model, surface, defence, rate, and optionally low, high (of [0, 1]) and n, said below.
        label: of the x axes, with its unit.
        reported: the same columns, from a paper.
    """
    tables = _tables(rates, reported, columns=["surface", "defence"], figure="rates_of_models")
    methods = in_house_order(name for table in tables for name in table["defence"])
    tables = [
        t.assign(surface=t["surface"].str.replace(" (", "\n(")) for t in tables
    ]  # half a width for labels
    heights = [
        0.6 + max(part["surface"].nunique() for _, part in table.groupby("model")) * _row(table, len(methods))
        for table in tables
    ]
    figure = new_figure(0.4 + sum(heights))
    for axes, part, title, hollow, _ in _panels(figure, tables, heights=heights, sharey=False):
        rate_panel(axes, part, methods=methods, hollow=hollow, title=title, label=label)
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
        reported: the same columns, from a paper.
    """
    tables = _tables(table, reported, columns=[x, "series"], figure="lines_of_models")
    looks = series_looks(list(dict.fromkeys(name for one in tables for name in one["series"])))
    figure = new_figure(0.4 + PANEL_HEIGHT * len(tables))
    handles: dict[str, Line2D] = {}
    for axes, part, title, hollow, first in _panels(figure, tables, heights=None, sharey=True):
        for name, line in part.groupby("series", sort=False):
            colour, marker = looks[str(name)]
            line_with_band(
                axes, line, x=x, y="rate", colour=colour, marker=marker, hollow=hollow, label=str(name)
            )
        if (part[x] % 1 == 0).all():
            layer_axis(axes, part[x])
        percent_axis(axes, label=y_label if first else "")
        axes.set_xlabel(x_label)
        axes.set_title(title)
        if chosen is not None:
            mark_value(axes, chosen, chosen_label or f"{chosen:g}")
        handles = {
            str(line.get_label()): line for line in axes.lines if str(line.get_label()) in looks
        } | handles
    figure.legend(
        handles=list(handles.values()), loc="outside upper left", ncols=min(len(handles), 4), handlelength=1.8
    )
    return figure


def _row(table: pd.DataFrame, methods: int) -> float:
    """Inches of one surface's row: its dots one above the other, and room for its label."""
    lines = 1 + table["surface"].str.count("\n").max()
    return max(ROW_HEIGHT * methods, LINE_HEIGHT * lines)


def _tables(
    measured: pd.DataFrame, reported: pd.DataFrame | None, *, columns: list[str], figure: str
) -> list[pd.DataFrame]:
    tables = [measured] if reported is None else [measured, reported]
    for table in tables:
        require(table, ["model", *columns, "rate"], figure=figure)
    return tables


def _panels(
    figure: Figure, tables: list[pd.DataFrame], *, heights: list[float] | None, sharey: bool
) -> Iterator[tuple[Axes, pd.DataFrame, str, bool, bool]]:
    """A row a table, a column a model: axes, the model's rows, title, is it reported?, is it the first of its row?"""
    models = [list(dict.fromkeys(str(model) for model in table["model"])) for table in tables]
    grid = figure.subplots(
        len(tables), max(map(len, models)), squeeze=False, height_ratios=heights, sharey=sharey
    )
    for row, table in enumerate(tables):
        said = "reported" if row else "measured here"
        for column, axes in enumerate(grid[row]):
            if column >= len(models[row]):
                axes.set_visible(False)
                continue
            model = models[row][column]
            yield axes, table[table["model"] == model], f"{said}: {model}", bool(row), column == 0
