"""The training of a model organism: loss above, what the model can do below, a column a stage.

Stages stand side by side since the story is what each adds: sight, then language, then a safety that
stays in the text. Columns grow with the square root of a stage's steps, so that a short one is legible.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from autosteer_lib.plotting.style import NEUTRAL, new_figure, percent_axis, require, styled
from autosteer_lib.plotting.sweeps import SERIES_COLOURS, SERIES_MARKERS

LOSS = "loss"


@styled
def training_curves(
    log: pd.DataFrame,
    *,
    loss_label: str = "loss (nats)",
    milestone_label: str = "share of test items (%)",
    x_label: str = "step",
) -> Figure:
    """Draw loss and milestones.

    Args:
        log: columns stage, step (within its stage), quantity, value. Quantity "loss" goes to the upper
            row; every other one is a milestone, a share of [0, 1], and goes to the lower.
        loss_label: label of the upper row, with its unit.
        milestone_label: label of the lower row, with its unit.
        x_label: what a step is.
    """
    require(log, ["stage", "step", "quantity", "value"], figure="training_curves")
    stages = list(dict.fromkeys(log["stage"]))
    names = [name for name in dict.fromkeys(log["quantity"]) if name != LOSS]
    if len(names) > len(SERIES_COLOURS):
        raise ValueError(
            f"{len(names)} milestones are too many for one panel; draw at most {len(SERIES_COLOURS)}"
        )
    steps = [float(log.loc[log["stage"] == stage, "step"].max()) for stage in stages]
    widths = np.sqrt(np.maximum(steps, 1))
    widths = np.maximum(widths, 0.6 * widths.max())  # room for a title and two tick labels
    rows = 2 if names else 1
    figure = new_figure(4.3 if names else 2.2)
    panels = figure.subplots(
        rows, len(stages), squeeze=False, sharex="col", sharey="row", width_ratios=widths,
        height_ratios=[1, 1.3][:rows],
    )  # fmt: skip
    for column, stage in enumerate(stages):
        here = log[log["stage"] == stage]
        first = column == 0
        _loss(panels[0, column], here[here["quantity"] == LOSS], label=loss_label if first else "")
        panels[0, column].set_title(str(stage))
        if names:
            _milestones(panels[1, column], here, names, label=milestone_label if first else "")
        panels[-1, column].set_xlim(-0.03 * steps[column], 1.03 * max(steps[column], 1))
        panels[-1, column].set_xlabel(x_label)
        panels[-1, column].xaxis.set_major_locator(
            MaxNLocator(nbins=2 if len(stages) > 1 else 8, integer=True)
        )
    if names:
        handles = [
            Line2D([], [], color=colour, marker=marker, label=name)
            for name, colour, marker in zip(names, SERIES_COLOURS, SERIES_MARKERS, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.8)
    return figure


def _loss(axes: Axes, loss: pd.DataFrame, *, label: str) -> None:
    loss = loss.sort_values("step")
    axes.plot(loss["step"], loss["value"], color=NEUTRAL, linewidth=1.0)
    axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.grid(True, axis="y")


def _milestones(axes: Axes, log: pd.DataFrame, names: list[str], *, label: str) -> None:
    for name, colour, marker in zip(names, SERIES_COLOURS, SERIES_MARKERS, strict=False):
        line = log[log["quantity"] == name].sort_values("step")
        axes.plot(
            line["step"], line["value"], color=colour, marker=marker, markersize=4.5, linewidth=1.4, zorder=3
        )
    percent_axis(axes, label=label)
