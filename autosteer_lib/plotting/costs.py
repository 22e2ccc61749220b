"""What a defence costs: seconds an answer relative to no defence, and model calls an answer.

Seconds vary from machine to machine, their ratio less so; calls are exact and the same everywhere.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import NEUTRAL, in_house_order, method_colour, new_figure, require, styled


@styled
def cost_bars(costs: pd.DataFrame, *, baseline: str = "Orig.", title: str = "") -> Figure:
    """Draw two panels of bars, one bar a defence.

    Args:
        costs: columns defence, seconds (an answer), model_calls (an answer).
        baseline: the defence that ratios are relative to.
        title: says machine and model.
    """
    require(costs, ["defence", "seconds", "model_calls"], figure="cost_bars")
    names = in_house_order(costs["defence"])
    table = costs.set_index("defence").loc[names]
    if table.index.has_duplicates or baseline not in table.index:
        raise ValueError(
            f"cost_bars needs one row a defence and {baseline!r} among them, received {list(costs['defence'])}"
        )
    seconds = table["seconds"].to_numpy(dtype=float)
    ratio = seconds / seconds[names.index(baseline)]
    calls = table["model_calls"].to_numpy(dtype=float)
    figure = new_figure(0.95 + 0.3 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    rows, colours = np.arange(len(names)), [method_colour(name) for name in names]
    for axes, values, form in ((left, ratio, "×{:.2f}"), (right, calls, "{:.1f}")):
        axes.barh(rows, values, height=0.62, color=colours)
        axes.set_xlim(0, 1.22 * float(values.max()))
        for row, value in enumerate(values):
            axes.annotate(
                form.format(value), (value, row), xytext=(4, 0), textcoords="offset points", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},  # the line at ×1 runs behind it
            )  # fmt: skip
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    left.axvline(1.0, color=NEUTRAL, linewidth=1.0, linestyle=":")
    left.set_yticks(rows, names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel(f"time an answer, relative to {baseline}")
    right.set_xlabel("model calls an answer")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=left.title.get_fontsize())
    return figure
