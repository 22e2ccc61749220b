"""What the probe thinks of an answer's first word: the refusal's, the model's own, the best of the candidates.

A row a surface, a dot a word: its mean score, with a bar from the 10th to the 90th percentile over prompts. Re-ranking
takes the candidate with the best score, so it refuses where the refusal's dot lies furthest in the preferred
direction, and where that word is a candidate at all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    HARMFUL,
    NEUTRAL,
    VERDICT_COLOURS,
    new_figure,
    one_row_each,
    require,
    styled,
)

LOOKS = {
    "refusal": (VERDICT_COLOURS["refused"], "s"),
    "own": (HARMFUL, "o"),
    "best candidate": (NEUTRAL, "D"),
}
NAMES = {
    "refusal": "the refusal's first word",
    "own": "the model's own",
    "best candidate": "the best of the candidates",
}


@styled
def first_word_scores(
    frame: pd.DataFrame, *, label: str = "probe's score s after the word: mean, 10th to 90th percentile"
) -> Figure:
    """Draw surfaces × words.

    Args:
        frame: columns surface, word ("refusal", "own", "best candidate"), mean, low, high; order of surfaces kept.
        label: of the x axis.
    """
    require(frame, ["surface", "word", "mean", "low", "high"], figure="first_word_scores")
    unknown = sorted(set(frame["word"]) - set(LOOKS))
    if unknown:
        raise ValueError(f"word {unknown} is not known; allowed: {list(LOOKS)}")
    one_row_each(frame, ["surface", "word"], figure="first_word_scores")
    surfaces = list(dict.fromkeys(frame["surface"]))
    figure = new_figure(0.9 + 0.5 * len(surfaces))
    axes = figure.subplots()
    for (word, (colour, marker)), offset in zip(LOOKS.items(), (-0.24, 0.0, 0.24), strict=True):
        here = frame[frame["word"] == word]
        rows = np.array([surfaces.index(name) for name in here["surface"]]) + offset
        axes.hlines(rows, here["low"], here["high"], color=colour, linewidth=1.4, alpha=0.75)
        axes.plot(here["mean"], rows, linestyle="", marker=marker, color=colour, zorder=3)
    axes.axvline(0, color=NEUTRAL, linewidth=1.0, linestyle=":", zorder=0)
    axes.set_yticks(range(len(surfaces)), surfaces)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(surfaces) - 0.5, -0.5)
    for boundary in range(1, len(surfaces)):
        axes.axhline(boundary - 0.5, color="#E6E6E6", linewidth=0.8)
    axes.set_xlabel(label)
    axes.grid(True, axis="x")
    figure.legend(
        handles=[
            Line2D([], [], linestyle="", marker=marker, color=colour, label=NAMES[word])
            for word, (colour, marker) in LOOKS.items()
        ],
        loc="outside upper left", ncols=3, handletextpad=0.2,
    )  # fmt: skip
    return figure
