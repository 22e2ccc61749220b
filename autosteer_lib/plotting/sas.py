"""Safety Awareness Score by layer: AutoSteer's Fig. 4.

A bar a layer with its interval, if it has one; the chosen one filled in the method's colour, the others pale.
Numbers that a paper prints are hatched and in panels of their own, on the same scale: another model, other layers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import METHOD_COLOURS, require, small_multiples, styled, tint


@styled
def sas_by_layer(scores: pd.DataFrame, *, reported: pd.DataFrame | None = None, columns: int = 3) -> Figure:
    """Draw one panel a model (and set).

    Args:
        scores: columns model, layer, sas, optionally low, high; optionally `chosen` (bool), else each panel's highest
            bar is marked.
        reported: the same columns, from a paper.
        columns: panels a row.
    """
    tables = [
        *_panels(scores, hatched=False),
        *(_panels(reported, hatched=True) if reported is not None else []),
    ]
    low = min(0.0, *(float(table["sas"].min()) for _, table, _ in tables))
    high = max(0.0, *(float(table["sas"].max()) for _, table, _ in tables))
    figure, panels = small_multiples(len(tables), columns=columns, head=0.2, row=2.15, sharey=True)
    for panel, (title, table, hatched) in zip(panels, tables, strict=True):
        axes = panel.axes
        _bars(axes, table, hatched=hatched)
        axes.set_ylim(low - 0.05 * (high - low) * (low < 0), high + 0.15 * (high - low))
        axes.set_title(f"{title}\n" + ("reported by the paper" if hatched else "measured here"))
        axes.set_xlabel("layer")
        axes.set_ylabel("SAS (mean cosine)" if panel.leftmost else "")
    return figure


def _panels(scores: pd.DataFrame, *, hatched: bool) -> list[tuple[str, pd.DataFrame, bool]]:
    require(scores, ["model", "layer", "sas"], figure="sas_by_layer")
    return [
        (str(model), table.sort_values("layer"), hatched)
        for model, table in scores.groupby("model", sort=False)
    ]


def _bars(axes: Axes, table: pd.DataFrame, *, hatched: bool) -> None:
    values = table["sas"].to_numpy(dtype=float)
    chosen = table["chosen"].to_numpy(dtype=bool) if "chosen" in table else values == np.nanmax(values)
    colour = METHOD_COLOURS["AutoSteer"]
    step = 2 if len(values) > 8 else 1
    tops = values
    if {"low", "high"} <= set(table.columns):
        tops = table["high"].to_numpy(dtype=float)
        lows = table["low"].to_numpy(dtype=float)
        axes.vlines(np.arange(len(values)), lows, tops, color="black", linewidth=1.0, zorder=3)
    for position, (value, top, best) in enumerate(zip(values, tops, chosen, strict=True)):
        fill = colour if best else tint(colour, strength=0.35)
        axes.bar(
            position, value, width=0.8, facecolor="white" if hatched else fill, edgecolor=fill,
            linewidth=1.2, hatch="////" if hatched else None,
        )  # fmt: skip
        if best:
            axes.annotate(
                f"{value:.3f}".replace("-", "−"), (position, max(top, 0.0)), xytext=(0, 2), textcoords="offset points",
                ha="center", va="bottom", fontweight="bold",
            )  # fmt: skip
    axes.set_xticks(range(0, len(values), step), [f"{layer:g}" for layer in table["layer"]][::step])
    axes.tick_params(axis="x", length=0)
    axes.axhline(0.0, color="black", linewidth=0.8)
