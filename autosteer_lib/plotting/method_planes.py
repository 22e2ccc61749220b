"""Many methods in several planes: what attacks still achieve against one price or another, side by side.

A dot a method with its intervals; a thin line leads to it from the small hollow dot of its published setting. The grey
staircase joins the methods that no other one beats. A paper's own numbers stand in panels of their own, hollow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from autosteer_lib.plotting.safety_plane import Better, unbeaten
from autosteer_lib.plotting.style import (
    NEUTRAL,
    WIDTH,
    in_house_order,
    marker_size,
    method_colour,
    method_marker,
    one_row_each,
    percent_axis,
    require,
    small_multiples,
    styled,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One panel."""

    title: str
    table: pd.DataFrame
    """Columns method, x, y, and optionally x_low, x_high, y_low, y_high."""
    x_label: str
    x_better: Better = "lower"
    share: bool = True
    """Whether x is a share of [0, 1]; else it is a multiple, drawn on a logarithmic axis."""
    published: pd.DataFrame | None = None
    """Where each method stands in its published setting: columns method, x, y."""
    reported: bool = False
    """A paper's numbers: hollow."""

    @property
    def front(self) -> bool:
        """Whether the staircase of unbeaten methods is drawn: of ours, where x is a share."""
        return self.share and not self.reported


@styled
def method_planes(
    planes: Sequence[Plane], *, y_label: str = "attacks that succeed (%)", title: str = ""
) -> Figure:
    """Draw one panel a plane, one dot a method.

    Args:
        planes: at least one.
        y_label: of all y axes, with its unit.
        title: says which model was measured.
    """
    if not planes:
        raise ValueError("method_planes received no plane; give at least one")
    for plane in planes:
        require(plane.table, ["method", "x", "y"], figure="method_planes")
        one_row_each(plane.table, ["method"], figure="method_planes")
    methods = in_house_order(name for plane in planes for name in plane.table["method"])
    wide = len(planes) > 1
    figure, panels = small_multiples(len(planes), columns=2, head=0.95, row=2.7, width=WIDTH if wide else 4.4)
    for panel, plane in zip(panels, planes, strict=True):
        axes = panel.axes
        _draw(axes, plane)
        # a paper's rates can be so low that on the whole axis they were one dot
        highest = float(plane.table["y"].max()) if plane.reported else 1.0
        percent_axis(axes, label=f"{y_label}\nlower is better" if panel.leftmost else "", highest=highest)
        axes.grid(True, axis="both")
        axes.set_title(plane.title)
    handles = [
        Line2D([], [], linestyle="", marker=method_marker(name), color=method_colour(name), label=name)
        for name in methods
    ]
    if any(plane.front for plane in planes):
        handles.append(Line2D([], [], color=NEUTRAL, linewidth=1.0, label="unbeaten"))
    if any(plane.published is not None for plane in planes):
        small = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white"}
        handles.append(Line2D([], [], color=NEUTRAL, linewidth=0.8, label="as published", **small))  # type: ignore[arg-type]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=4 if wide else 3, handlelength=1.4, handletextpad=0.5,
        title=title or None, alignment="left",
    )  # fmt: skip
    return figure


def _draw(axes: Axes, plane: Plane) -> None:
    if plane.front:
        corners = unbeaten(plane.table, x_better=plane.x_better)
        axes.step(
            corners["x"], corners["y"], where="post" if plane.x_better == "lower" else "pre", color=NEUTRAL,
            linewidth=1.0, zorder=1,
        )  # fmt: skip
    before = {} if plane.published is None else plane.published.set_index("method").to_dict("index")
    for row in plane.table.to_dict("records"):
        colour, name = method_colour(row["method"]), row["method"]
        if {"x_low", "x_high"} <= set(row):
            axes.hlines(row["y"], row["x_low"], row["x_high"], color=colour, linewidth=1.0, alpha=0.6)
        if {"y_low", "y_high"} <= set(row):
            axes.vlines(row["x"], row["y_low"], row["y_high"], color=colour, linewidth=1.0, alpha=0.6)
        if name in before and (before[name]["x"], before[name]["y"]) != (row["x"], row["y"]):
            _trail(axes, before[name], row, colour=colour)
        axes.plot(
            [row["x"]], [row["y"]], linestyle="", marker=method_marker(name), color=colour, markersize=marker_size(name),
            markeredgewidth=1.3, markerfacecolor="white" if plane.reported else colour, zorder=3,
        )  # fmt: skip
    label = f"{plane.x_label}\n{plane.x_better} is better"
    known = [plane.table] if plane.published is None else [plane.table, plane.published]
    values = np.concatenate(
        [t[c].to_numpy(dtype=float) for t in known for c in ("x", "x_low", "x_high") if c in t]
    )
    if plane.share:
        lower = plane.x_better == "lower"
        limits = {"highest": float(values.max())} if lower else {"bottom": _quarter_below(values)}
        percent_axis(axes, which="x", label=label, **limits)
    else:
        _multiples(axes, values, label=label)


def _trail(axes: Axes, before: Mapping[Any, Any], row: Mapping[Any, Any], *, colour: str) -> None:
    axes.plot([before["x"], row["x"]], [before["y"], row["y"]], color=colour, linewidth=0.8, zorder=2)
    axes.plot(
        [before["x"]], [before["y"]], linestyle="", marker="o", color=colour, markersize=3.5, markerfacecolor="white",
        zorder=2,
    )  # fmt: skip


def _quarter_below(values: np.ndarray) -> float:
    return float(np.floor(4 * np.nanmin(values)) / 4)


def _multiples(axes: Axes, values: np.ndarray, *, label: str) -> None:
    """×1, ×2, ×4 …: a doubling is a step of the same length wherever it happens."""
    top = max(2.0, 2.0 ** np.ceil(np.log2(values.max())))
    ticks = 2.0 ** np.arange(0, np.log2(top) + 1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(0.93, 0.95 * values.min()), 1.08 * top)
    axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"×{tick:g}" for tick in ticks])
    axes.set_xlabel(label)
