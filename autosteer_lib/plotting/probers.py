"""Prober accuracy over training epochs, one panel a set, one line a layer: AutoSteer's Fig. 3, 9 and 10.

Layers are ordered, so they take a sequential palette, dark = early. The dotted line is chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    NEUTRAL,
    SEQUENTIAL,
    percent_axis,
    require,
    small_multiples,
    styled,
)

CHANCE = 0.5  # harmful and harmless in equal parts


@styled
def prober_accuracy_over_epochs(
    history: pd.DataFrame, *, chosen: Mapping[int, int] | None = None, title: str = ""
) -> Figure:
    """Draw accuracy over epochs.

    Args:
        history: columns set, layer, epoch, accuracy (of [0, 1]).
        chosen: epoch that was kept, by layer; marked with a dot on that layer's lines.
        title: says which model was measured.
    """
    require(history, ["set", "layer", "epoch", "accuracy"], figure="prober_accuracy_over_epochs")
    sets = list(dict.fromkeys(history["set"]))
    layers = sorted(set(history["layer"].tolist()))
    colours = dict(zip(layers, mpl.colormaps[SEQUENTIAL](np.linspace(0, 0.88, len(layers))), strict=True))
    bottom = min(0.4, float(history["accuracy"].min()))
    head = 0.8 if title else 0.6
    figure, panels = small_multiples(len(sets), columns=3, head=head, row=1.75, sharex=True, sharey=True)
    for panel, name in zip(panels, sets, strict=True):
        axes = panel.axes
        _panel(axes, history[history["set"] == name], colours=colours, chosen=chosen or {})
        axes.set_title(name)
        axes.set_xlabel("epoch" if panel.lowest else "")
        axes.tick_params(labelbottom=panel.lowest)
        percent_axis(axes, label="accuracy (%)" if panel.leftmost else "", bottom=bottom)
    norm = BoundaryNorm(np.arange(len(layers) + 1) - 0.5, len(layers))
    mappable = ScalarMappable(norm, ListedColormap([colours[layer] for layer in layers]))
    bar = figure.colorbar(mappable, ax=figure.axes, aspect=25, pad=0.02, ticks=range(len(layers)))
    bar.ax.set_yticklabels([f"{layer:g}" for layer in layers])
    bar.ax.tick_params(which="both", length=0)
    bar.set_label("probed layer")
    bar.outline.set_visible(False)
    handles = [Line2D([], [], color=NEUTRAL, linewidth=1.0, linestyle=":", label="chance")]
    if chosen:
        dot = Line2D(
            [], [], linestyle="", marker="o", color=NEUTRAL, markersize=6, label="epoch that is kept"
        )
        handles.insert(0, dot)
    figure.legend(handles=handles, loc="outside upper left", ncols=2, title=title or None, alignment="left")
    return figure


def _panel(
    axes: Axes, history: pd.DataFrame, *, colours: Mapping[int, np.ndarray], chosen: Mapping[int, int]
) -> None:
    axes.axhline(CHANCE, color=NEUTRAL, linewidth=1.0, linestyle=":")
    for layer in sorted(set(history["layer"].tolist())):
        line = history[history["layer"] == layer].sort_values("epoch")
        axes.plot(line["epoch"], line["accuracy"], color=colours[layer], linewidth=1.4)
        kept = line[line["epoch"] == chosen.get(layer)]
        axes.plot(
            kept["epoch"], kept["accuracy"], linestyle="", marker="o", color=colours[layer],
            markeredgecolor="white", markersize=6,
        )  # fmt: skip
