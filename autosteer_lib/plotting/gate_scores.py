"""Gate scores by set: does the threshold lie between harmful and harmless prompts?

One dot a prompt, so that a handful of prompts on the wrong side is seen, not averaged away. A gate's
scores crowd at 0 and 1; the logit axis pulls them apart, ln(s / (1 − s)), and is labelled in s.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import logit

from autosteer_lib.plotting.style import HARMFUL, HARMLESS, NEUTRAL, new_figure, require, styled

FLOOR = 1e-4  # on the logit axis, scores beyond 10⁻⁴ of either end are drawn at that end
TICKS = np.array((1e-4, 1e-2, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4))
TICK_NAMES = ("≤10⁻⁴", "0.01", "0.1", "0.5", "0.9", "0.99", "≥1−10⁻⁴")
COLOURS = {True: HARMFUL, False: HARMLESS}
SPREAD = 0.15  # half the height of a strip of dots, in rows


@styled
def gate_scores_by_set(scores: pd.DataFrame, *, threshold: float = 0.5) -> Figure:
    """Draw a strip of dots for each set, harmful prompts above its harmless ones.

    Args:
        scores: columns set, harmful (bool), score (of [0, 1]); order of sets kept.
        threshold: τ, drawn across; the share at or above it is written at the right of each strip.
    """
    require(scores, ["set", "harmful", "score"], figure="gate_scores_by_set")
    values = scores["score"].to_numpy(dtype=float)
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise ValueError(f"gate scores must lie in [0, 1], received {values[outside][:3].tolist()} …")
    sets = list(dict.fromkeys(scores["set"]))
    strips = scores.assign(harmful=scores["harmful"].astype(bool)).groupby(["set", "harmful"], sort=False)
    mixed = len(strips) > len(sets)
    figure = new_figure(0.95 + (0.5 if mixed else 0.34) * len(sets))
    axes = figure.subplots()
    generator = np.random.default_rng(0)  # the vertical jitter has no meaning
    for (name, harmful), strip in strips:
        row = sets.index(str(name)) + (0.21 * (-1 if harmful else 1) if mixed else 0.0)
        place = _place(strip["score"].to_numpy(dtype=float))
        axes.plot(
            place, row + generator.uniform(-SPREAD, SPREAD, len(place)), linestyle="", marker="o", markersize=3.2,
            color=COLOURS[bool(harmful)], markeredgewidth=0, alpha=0.5, rasterized=True,
        )  # fmt: skip
        fired = float((strip["score"] >= threshold).mean())
        _beside(axes, row, f"{100 * fired:.0f} %", colour=COLOURS[bool(harmful)])
    _threshold(axes, threshold)
    low, high = _place(np.array([0.0, 1.0]))
    axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.set_xticks(logit(TICKS), TICK_NAMES)
    axes.set_yticks(range(len(sets)), sets)
    axes.set_ylim(len(sets) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_xlabel("gate score s")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[kind], label="harmful" if kind else "harmless")
        for kind in COLOURS
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.1)
    return figure


def _place(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.asarray(logit(np.clip(scores, FLOOR, 1 - FLOOR)))


def _threshold(axes: Axes, threshold: float) -> None:
    at = float(_place(np.array([threshold]))[0])
    axes.axvline(at, color="black", linewidth=1.2, linestyle="--", zorder=0)
    axes.annotate(
        f"τ = {threshold:g}", (at, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
        ha="center", va="bottom",
    )  # fmt: skip
    axes.annotate(
        "opens",
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(10, 3),
        textcoords="offset points",
        va="bottom",
        color=NEUTRAL,
    )


def _beside(axes: Axes, row: float, text: str, *, colour: str) -> None:
    axes.annotate(
        text, (1.0, row), xycoords=("axes fraction", "data"), xytext=(10, 0), textcoords="offset points", va="center",
        color=colour, annotation_clip=False,
    )  # fmt: skip
