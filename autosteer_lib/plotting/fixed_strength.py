"""Refusals under one fixed strength: MARS' Fig. 1a (over layers) and 1b (over strengths).

    h̄ = h + α ⟨h, d̂⟩ d̂      d̂ the refusal direction of texts

Over layers the message is the gap between harmful and harmless requests, so both are lines of one panel and the
layer where they lie furthest apart has a star, unless their intervals meet even there. Over strengths it is what a
stronger push costs, so wanted refusals, unwanted ones and utility stand side by side. What the paper shows is hatched
and in a panel of its own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from autosteer_lib.plotting.style import (
    HARMFUL,
    HARMLESS,
    MEASURE_COLOURS,
    NEUTRAL,
    layer_axis,
    line_with_band,
    measures_in_order,
    new_figure,
    one_row_each,
    percent_axis,
    require,
    sample_size,
    small_multiples,
    styled,
    surface_panels,
)

LOOKS = {True: (HARMFUL, "o", "harmful"), False: (HARMLESS, "s", "harmless")}
BAR = 0.26  # width of a bar, strengths being 1 apart: three bars and a gap


@styled
def refusal_by_layer(frame: pd.DataFrame, *, label: str = "refused (%)") -> Figure:
    """Draw harmful against harmless over layers, one panel a surface.

    Args:
        frame: columns layer, surface, harmful (bool), rate, low, high (of [0, 1]); optionally n, and alpha, the
            strength. One row a layer, surface and side: choose a strength and a centring first.
        label: of the y axis, with its unit: the same figure shows on which share a gate opens.
    """
    require(frame, ["layer", "surface", "harmful", "rate", "low", "high"], figure="refusal_by_layer")
    one_row_each(frame, ["surface", "harmful", "layer"], figure="refusal_by_layer")
    surfaces = list(dict.fromkeys(frame["surface"]))
    figure, panels = small_multiples(len(surfaces), columns=3, head=0.45, row=1.95, sharex=True, sharey=True)
    for panel, surface in zip(panels, surfaces, strict=True):
        axes, here = panel.axes, frame[frame["surface"] == surface]
        for harmful, (colour, marker, _) in LOOKS.items():
            line = here[here["harmful"].astype(bool) == harmful]
            line_with_band(axes, line, x="layer", y="rate", colour=colour, marker=marker)
        size = f", {sample_size(here)}" if "n" in here else ""
        # The title stands higher than elsewhere: a star at 100 % reaches over the panel's edge.
        axes.set_title(f"{surface}{size}\n{_star(axes, here)}", pad=10)
        axes.set_xlabel(_layer_label(frame) if panel.lowest else "")
        axes.tick_params(labelbottom=panel.lowest)
        percent_axis(axes, label=label if panel.leftmost else "")
        layer_axis(axes, frame["layer"])
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name) for colour, marker, name in LOOKS.values()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.8)
    return figure


@styled
def refusal_by_strength(
    frame: pd.DataFrame,
    *,
    reported: pd.DataFrame | None = None,
    title: str = "measured here",
    reported_title: str = "reported by the paper, read off its figure",
) -> Figure:
    """Draw a group of bars for each strength.

    Args:
        frame: columns alpha (0: no steering), measure ("harmful refused", "harmless refused", "utility"), rate,
            low, high (of [0, 1]); optionally n, and surface: then a panel each, with the same utility.
        reported: columns alpha, measure, rate, from a paper.
        title: says which model was measured.
        reported_title: says whose numbers, and how they were read.
    """
    require(frame, ["alpha", "measure", "rate", "low", "high"], figure="refusal_by_strength")
    panels = [(f"{title}: {name}" if name else title, part, False) for name, part in surface_panels(frame)]
    if reported is not None:
        require(reported, ["alpha", "measure", "rate"], figure="refusal_by_strength")
        panels.append((reported_title, reported, True))
    measures = measures_in_order(name for _, table, _ in panels for name in table["measure"])
    alphas = sorted({float(alpha) for _, table, _ in panels for alpha in table["alpha"]})
    figure = new_figure(0.55 + 1.85 * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, table, hatched) in zip(grid, panels, strict=True):
        one_row_each(table, ["alpha", "measure"], figure="refusal_by_strength")
        for offset, measure in enumerate(measures):
            bars = table[table["measure"] == measure]
            places = np.array([alphas.index(float(alpha)) for alpha in bars["alpha"]])
            _bars(axes, bars, places + (offset - (len(measures) - 1) / 2) * BAR, hatched=hatched)
        percent_axis(axes, label="share of answers (%)")
        axes.set_ylim(0.0, 1.16)  # room for a number on a bar of 100 %
        axes.set_title(name)
        axes.tick_params(axis="x", length=0)
    grid[-1].set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    grid[-1].set_xlabel("steering strength α (0: none)")
    handles = [Patch(color=MEASURE_COLOURS[name], label=name) for name in measures]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.2)
    return figure


def _star(axes: Axes, table: pd.DataFrame) -> str:
    """Mark the layer of the largest gap, and say in words what the star shows."""
    sides = table.assign(harmful=table["harmful"].astype(bool)).pivot(
        index="layer", columns="harmful", values="rate"
    )
    if not {True, False} <= set(sides.columns):
        return ""
    gap = (sides[True] - sides[False]).round(9)  # equal gaps: the lowest layer, whatever the last digits
    if gap.isna().all() or gap.max() <= 0:
        return "no gap at any layer"
    best = int(np.nanargmax(gap.to_numpy(dtype=float)))
    layer, height = float(gap.index.to_numpy()[best]), float(sides[True].to_numpy()[best])
    here = table[table["layer"] == layer].assign(harmful=table["harmful"].astype(bool)).set_index("harmful")
    if here["low"][True] <= here["high"][False]:
        return f"no clear gap: {100 * gap.max():+.0f} at most"
    axes.plot(
        [layer], [height], linestyle="", marker="*", markersize=14, color="#F0C000",
        markeredgecolor="black", markeredgewidth=0.9, zorder=4,
        clip_on=False,
    )  # fmt: skip
    return f"★ layer {layer:g}: {100 * gap.max():+.0f} points"


def _layer_label(frame: pd.DataFrame) -> str:
    if "alpha" not in frame:
        return "layer"
    return f"layer steered, α = {', '.join(f'{alpha:g}' for alpha in sorted(set(frame['alpha'])))}"


def _bars(axes: Axes, bars: pd.DataFrame, places: np.ndarray, *, hatched: bool) -> None:
    rates = bars["rate"].to_numpy(dtype=float)
    tops = rates
    for place, rate, measure in zip(places, rates, bars["measure"], strict=True):
        colour = MEASURE_COLOURS[measure]
        axes.bar(
            place, rate, width=0.9 * BAR, facecolor="white" if hatched else colour, edgecolor=colour, linewidth=1.2,
            hatch="////" if hatched else None,
        )  # fmt: skip
    if {"low", "high"} <= set(bars.columns):
        tops = bars["high"].to_numpy(dtype=float)
        axes.vlines(places, bars["low"].to_numpy(dtype=float), tops, color="black", linewidth=1.0)
    for place, rate, top in zip(places, rates, tops, strict=True):
        if not np.isnan(rate):
            axes.annotate(
                f"{100 * rate:.0f}", (place, np.fmax(rate, top)), xytext=(0, 2), textcoords="offset points",
                ha="center", va="bottom", color=NEUTRAL,
            )  # fmt: skip
