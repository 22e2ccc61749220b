"""States before a probe: how far from its boundary, and on which side; SafeSteer's Fig. 2, 7 and 8.

A panel a step or a layer, each with the plane of its own probe. x is the distance from the boundary, which is the
line x = 0 (right of it is judged harmful); y is the widest spread at right angles. Colour says what a state belongs
to, the marker through which channel it came.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.states import surface_markers
from autosteer_lib.plotting.style import (
    HARMFUL,
    HARMLESS,
    NEUTRAL,
    VERDICT_COLOURS,
    require,
    small_multiples,
    styled,
)

KIND_COLOURS = {"harmful": HARMFUL, "refusing": VERDICT_COLOURS["refused"], "harmless": HARMLESS}


@styled
def probe_planes(points: pd.DataFrame, *, columns: int = 2, panel_height: float = 2.1) -> Figure:
    """Draw the scatter.

    Args:
        points: columns panel, x, y, kind ("harmful", "refusing", "harmless"), surface; order of panels kept.
        columns: panels a row.
        panel_height: inches a row of panels.
    """
    require(points, ["panel", "x", "y", "kind", "surface"], figure="probe_planes")
    unknown = sorted(set(points["kind"]) - set(KIND_COLOURS))
    if unknown:
        raise ValueError(f"kind {unknown} is not known; allowed: {list(KIND_COLOURS)}")
    names = list(dict.fromkeys(points["panel"]))
    markers = surface_markers(points["surface"])
    if "questions" in markers:  # of no surface: one marker, whatever else is drawn
        markers["questions"] = "p"
    figure, panels = small_multiples(len(names), columns=columns, head=0.75, row=panel_height)
    for panel, name in zip(panels, names, strict=True):
        axes, here = panel.axes, points[points["panel"] == name]
        axes.axvline(0, color=NEUTRAL, linewidth=1.0, linestyle=":", zorder=0)
        for (kind, surface), group in here.groupby(["kind", "surface"], sort=False):
            axes.plot(
                group["x"], group["y"], linestyle="", marker=markers[str(surface)], markersize=4.2,
                markerfacecolor=KIND_COLOURS[str(kind)], markeredgecolor="white", markeredgewidth=0.4, alpha=0.7,
                rasterized=True,
            )  # fmt: skip
        axes.set(yticks=[], title=str(name))
        axes.set_xlabel("distance from the boundary" if panel.lowest else "")
        axes.set_ylabel("spread along it" if panel.leftmost else "")
    present = [name for name in KIND_COLOURS if name in set(points["kind"])]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=KIND_COLOURS[name], label=name) for name in present
    ] + [
        Line2D([], [], marker=marker, linestyle="", color="white", markeredgecolor=NEUTRAL, label=name)
        for name, marker in markers.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(len(handles), 5),
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return figure
