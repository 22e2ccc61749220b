"""Rates by attack surface and defence, with Wilson intervals: AutoSteer's Table 1 as a figure.

A row of dots a surface, one dot a defence; a horizontal bar is the 95 % interval. Dots rather than
bars, since the message is where a rate lies and how sure that is, and a rate of 0 must be visible.
The paper's own numbers, of other models on other sets, stand in a panel of their own, hollow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    NEUTRAL,
    in_house_order,
    method_colour,
    method_marker,
    new_figure,
    percent_axis,
    require,
    sample_size,
    styled,
)  # fmt: skip

ROW_HEIGHT = 0.19  # inches a dot: two lines of 9 pt text never touch


@styled
def rates_by_surface(
    rates: pd.DataFrame,
    *,
    label: str = "attack success rate (%)",
    title: str = "measured here",
    reported: pd.DataFrame | None = None,
    reported_title: str = "reported by the paper",
) -> Figure:
    """Draw one dot a surface and defence.

    Args:
        rates: columns surface, defence, rate, and optionally low, high (of [0, 1]) and n, said below; order of
            surfaces kept.
        label: of the x axis, with its unit.
        title: says which model was measured.
        reported: the same columns, for numbers that a paper prints; no interval is drawn where none is known.
        reported_title: says which paper and model.
    """
    tables = [rates] if reported is None else [rates, reported]
    for table in tables:
        require(table, ["surface", "defence", "rate"], figure="rates_by_surface")
    methods = in_house_order(name for table in tables for name in table["defence"])
    rows = [table["surface"].nunique() for table in tables]
    figure = new_figure(0.95 + max(rows) * (ROW_HEIGHT * len(methods) + 0.06))
    panels = list(figure.subplots(1, len(tables), squeeze=False)[0])
    rate_panel(panels[0], rates, methods=methods, hollow=False, title=title, label=label)
    if reported is not None:
        rate_panel(panels[1], reported, methods=methods, hollow=True, title=reported_title, label=label)
    handles = [
        Line2D([], [], marker=method_marker(name), color=method_colour(name), linestyle="", label=name)
        for name in methods
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(methods), 5), handletextpad=0.2)
    _rows_of_one_height(figure, panels, rows)
    return figure


def _rows_of_one_height(figure: Figure, panels: Sequence[Axes], rows: Sequence[int]) -> None:
    """Shorten the panel of fewer rows from below: stretched, its dots would lie too far apart to be compared."""
    figure.draw_without_rendering()  # lays the panels out
    figure.set_layout_engine("none")
    for axes, count in zip(panels, rows, strict=True):
        box = axes.get_position()
        height = box.height * count / max(rows)
        axes.set_position((box.x0, box.y1 - height, box.width, height))


def rate_panel(
    axes: Axes, table: pd.DataFrame, *, methods: Sequence[str], hollow: bool, title: str, label: str
) -> None:
    surfaces = list(dict.fromkeys(table["surface"]))
    offsets = np.linspace(-0.28, 0.28, len(methods)) if len(methods) > 1 else np.zeros(1)
    for method, offset in zip(methods, offsets, strict=True):
        chosen = table[table["defence"] == method]
        rows = np.array([surfaces.index(name) for name in chosen["surface"]]) + offset
        rates = chosen["rate"].to_numpy(dtype=float)
        colour = method_colour(method)
        right = rates
        if {"low", "high"} <= set(chosen.columns):
            low, high = chosen["low"].to_numpy(dtype=float), chosen["high"].to_numpy(dtype=float)
            axes.hlines(rows, low, high, color=colour, linewidth=1.4, alpha=0.75)
            right = np.fmax(high, rates)
        axes.plot(
            rates, rows, linestyle="", marker=method_marker(method), color=colour, markeredgewidth=1.3,
            markerfacecolor="white" if hollow else colour, zorder=3,
        )  # fmt: skip
        for x, y, rate in zip(right, rows, rates, strict=True):
            _value(axes, x, y, rate)
    axes.set_yticks(range(len(surfaces)), surfaces)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(surfaces) - 0.5, -0.5)
    for boundary in range(1, len(surfaces)):
        axes.axhline(boundary - 0.5, color="#E6E6E6", linewidth=0.8)
    percent_axis(axes, which="x", label=f"{label}, {sample_size(table)}" if "n" in table else label)
    axes.set_title(title)


def _value(axes: Axes, x: float, y: float, rate: float) -> None:
    """Write the rate right of its interval, or beyond the axis' end where there is no room."""
    if np.isnan(rate):
        return
    room = x < 0.86
    axes.annotate(
        f"{100 * rate:.0f}", (x if room else 1.0, y), xytext=(5, 0) if room else (6, 0), textcoords="offset points",
        va="center", ha="left", color=NEUTRAL, annotation_clip=False,
    )  # fmt: skip
