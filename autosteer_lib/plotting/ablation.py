"""What each part of a method adds: MARS' Table 4 and 8 as a figure.

A row a variant, a panel a measure; a dot is the rate, a bar its 95 % interval. A thin line carries the full method's
value down the panel, so that a variant that differs is seen at once. With surfaces, a dot each, in their colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    MEASURE_COLOURS,
    MEASURE_MARKERS,
    NEUTRAL,
    measures_in_order,
    new_figure,
    one_row_each,
    percent_axis,
    require,
    styled,
)
from autosteer_lib.plotting.sweeps import series_looks

FULL = "full"
ROW_HEIGHT = 0.27  # inches a variant, and as much for each further surface: 9 pt numbers never touch


@styled
def ablation_dots(
    frame: pd.DataFrame,
    *,
    full: str = FULL,
    reported: pd.DataFrame | None = None,
    title: str = "measured here",
    reported_title: str = "reported by the paper",
) -> Figure:
    """Draw variants × measures.

    Args:
        frame: columns variant, measure ("harmful refused", "harmless refused", "utility"), rate, low, high (of
            [0, 1]); optionally surface. Order of variants kept.
        full: the variant whose value is the line.
        reported: columns variant, measure, rate, from a paper: a row of panels of its own, hollow.
        title: says which model was measured.
        reported_title: says which paper and model.
    """
    require(frame, ["variant", "measure", "rate", "low", "high"], figure="ablation_dots")
    tables = [(title, frame, False)]
    if reported is not None:
        require(reported, ["variant", "measure", "rate"], figure="ablation_dots")
        tables.append((reported_title, reported, True))
    measures = measures_in_order(name for _, table, _ in tables for name in table["measure"])
    surfaces = _surfaces(frame)
    heights = [
        table["variant"].nunique() * (1.0 if hollow else max(len(surfaces), 1)) for _, table, hollow in tables
    ]
    figure = new_figure(0.35 + sum(ROW_HEIGHT * rows + 0.75 for rows in heights))
    grid = figure.subplots(len(tables), len(measures), squeeze=False, sharey="row", height_ratios=heights)
    for row, (name, table, hollow) in zip(grid, tables, strict=True):
        if full not in set(table["variant"]):
            raise ValueError(
                f"the full method {full!r} is not among the variants {list(dict.fromkeys(table['variant']))}"
            )
        for axes, measure in zip(row, measures, strict=True):
            here = table[table["measure"] == measure]
            _panel(
                axes, here, list(dict.fromkeys(table["variant"])), measure=measure, full=full, hollow=hollow
            )
        row[0].set_title(name)
    handles = [
        Line2D([], [], linestyle="", color=colour, marker=marker, label=surface)
        for surface, (colour, marker) in (series_looks(surfaces) if surfaces else {}).items()
    ]
    handles.append(Line2D([], [], color=NEUTRAL, linewidth=0.8, label=f"value of {full!r}"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5, handlelength=1.2, handletextpad=0.5)
    return figure


def _surfaces(table: pd.DataFrame) -> list[str]:
    """Surfaces to tell apart: none where there is only one."""
    if "surface" not in table:
        return []
    found = list(dict.fromkeys(table.loc[table["measure"] != "utility", "surface"]))
    return found if len(found) > 1 else []


def _panel(
    axes: Axes, table: pd.DataFrame, variants: Sequence[str], *, measure: str, full: str, hollow: bool
) -> None:
    looks = series_looks(_surfaces(table)) or {"": (MEASURE_COLOURS[measure], MEASURE_MARKERS[measure])}
    surfaces = list(looks)
    offsets = np.linspace(-0.3, 0.3, len(surfaces)) if len(surfaces) > 1 else np.zeros(1)
    for surface, offset in zip(surfaces, offsets, strict=True):
        dots = table[table["surface"] == surface] if surface else table
        one_row_each(dots, ["variant", "measure"], figure="ablation_dots")
        colour, marker = looks[surface]
        rows = np.array([variants.index(name) for name in dots["variant"]]) + offset
        rates = dots["rate"].to_numpy(dtype=float)
        for rate in dots.loc[dots["variant"] == full, "rate"]:
            axes.axvline(rate, color=colour, linewidth=0.8, zorder=0.7)  # over the grid (0.5), under the dots
        right = rates
        if {"low", "high"} <= set(dots.columns):
            right = dots["high"].to_numpy(dtype=float)
            axes.hlines(
                rows, dots["low"].to_numpy(dtype=float), right, color=colour, linewidth=1.4, alpha=0.75
            )
        axes.plot(
            rates, rows, linestyle="", marker=marker, color=colour, markeredgewidth=1.3,
            markerfacecolor="white" if hollow else colour, zorder=3,
        )  # fmt: skip
        for rate, row in zip(rates, rows, strict=True):
            _value(axes, rate, row)
    axes.set_yticks(range(len(variants)), variants)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    for boundary in range(1, len(variants)):
        axes.axhline(boundary - 0.5, color="#E6E6E6", linewidth=0.8, zorder=0.6)
    percent_axis(axes, which="x", label=f"{measure}\n(%)")
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])  # a panel can be an inch wide: five numbers would touch


def _value(axes: Axes, rate: float, row: float) -> None:
    """Write the rate at the panel's right edge, where no dot and no line can cover it."""
    if not np.isnan(rate):
        axes.annotate(
            f"{100 * rate:.0f}", (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", color=NEUTRAL, annotation_clip=False,
        )  # fmt: skip
