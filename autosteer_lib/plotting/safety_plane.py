"""Methods in a plane: what an attack still achieves (down is better) against what the defence costs.

A dot a method, a cross of 95 % intervals through it. The grey staircase joins the methods that no other one beats in
both: whatever lies above it is worse than some method on one axis and no better on the other. A paper's panel has axes
of its own, and says so: its rates can be so low that on ours they were one dot.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    NEUTRAL,
    in_house_order,
    marker_size,
    method_colour,
    method_marker,
    new_figure,
    one_row_each,
    percent_axis,
    require,
    styled,
)

Better: TypeAlias = Literal["lower", "higher"]
LEAST = 0.05  # a paper's axis ends here at the earliest


@styled
def safety_against_cost(
    frame: pd.DataFrame,
    *,
    x_label: str = "harmless requests refused (%)",
    y_label: str = "attacks that succeed (%)",
    x_better: Better = "lower",
    front: bool = False,
    reported: pd.DataFrame | None = None,
    title: str = "measured here",
    reported_title: str = "reported by the paper",
) -> Figure:
    """Draw one dot a method.

    Args:
        frame: columns method, x, x_low, x_high, y, y_low, y_high (of [0, 1]).
        x_label: of the x axis, with its unit.
        y_label: of the y axis, with its unit.
        x_better: which end of the x axis is good: "lower" for over-refusal, "higher" for utility.
        front: draw the staircase of unbeaten methods: no other one is as good on both axes and better on one.
        reported: columns method, x, y, from a paper: a panel of its own, hollow.
        title: says which model was measured.
        reported_title: says which paper and model.
    """
    require(frame, ["method", "x", "x_low", "x_high", "y", "y_low", "y_high"], figure="safety_against_cost")
    tables = [(title, frame, False)]
    if reported is not None:
        require(reported, ["method", "x", "y"], figure="safety_against_cost")
        tables.append((reported_title, reported, True))
    methods = in_house_order(name for _, table, _ in tables for name in table["method"])
    figure = new_figure(3.5, width=6.5 if len(tables) > 1 else 4.4)
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (name, table, hollow) in zip(panels, tables, strict=True):
        one_row_each(table, ["method"], figure="safety_against_cost")
        if front:
            _front(axes, table, x_better=x_better)
        for row in table.to_dict("records"):
            colour = method_colour(row["method"])
            if {"x_low", "x_high", "y_low", "y_high"} <= set(row):
                axes.hlines(row["y"], row["x_low"], row["x_high"], color=colour, linewidth=1.4, alpha=0.75)
                axes.vlines(row["x"], row["y_low"], row["y_high"], color=colour, linewidth=1.4, alpha=0.75)
            axes.plot(
                [row["x"]], [row["y"]], linestyle="", marker=method_marker(row["method"]), color=colour,
                markersize=marker_size(row["method"]), markeredgewidth=1.3,
                markerfacecolor="white" if hollow else colour, zorder=3,
            )  # fmt: skip
        percent_axis(
            axes, which="x", label=f"{x_label}\n{x_better} is better", **_zoom(table, x_better, hollow)
        )
        # ours whole: how many attacks are left is the message
        highest, least = (float(table["y"].max()), LEAST) if hollow else (1.0, 1.0)
        side = f"{y_label}\nlower is better" if axes is panels[0] else ""
        percent_axis(axes, label=side, highest=highest, least=least)
        axes.grid(True, axis="both")
        apart = (axes.get_xlim(), axes.get_ylim()) != (panels[0].get_xlim(), panels[0].get_ylim())
        axes.set_title(f"{name}\n(other axes)" if apart else name)
    handles = [
        Line2D([], [], linestyle="", marker=method_marker(name), color=method_colour(name), label=name)
        for name in methods
    ]
    if front:
        handles.append(Line2D([], [], color=NEUTRAL, linewidth=1.0, label="unbeaten"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=5 if len(tables) > 1 else 3, handletextpad=0.2
    )
    return figure


def unbeaten(table: pd.DataFrame, *, x_better: Better) -> pd.DataFrame:
    """Methods that no other one beats: none is at least as good in x and y and better in one. Sorted by x."""
    cost = table["x"].to_numpy(dtype=float) * (1 if x_better == "lower" else -1)
    attacks = table["y"].to_numpy(dtype=float)
    beaten = [
        bool(np.any((cost <= c) & (attacks <= a) & ((cost < c) | (attacks < a))))
        for c, a in zip(cost, attacks, strict=True)
    ]
    return table[~np.array(beaten)].sort_values("x")


def _front(axes: Axes, table: pd.DataFrame, *, x_better: Better) -> None:
    corners = unbeaten(table, x_better=x_better)
    axes.step(
        corners["x"], corners["y"], where="post" if x_better == "lower" else "pre", color=NEUTRAL, linewidth=1.0,
        zorder=1,
    )  # fmt: skip


def _zoom(table: pd.DataFrame, x_better: Better, hollow: bool) -> dict[str, float]:
    """Limits of a panel's x axis: from 0 up for what should be low; for utility, 100 % down."""
    known = [name for name in ("x", "x_low", "x_high") if name in table]
    values = table[known].to_numpy(dtype=float)
    if x_better == "lower":
        return {"highest": float(np.nanmax(values)), "least": LEAST if hollow else 0.25}
    return {"bottom": float(np.floor(4 * np.nanmin(values)) / 4)}
