"""Where MARS steers: three scores of each candidate layer, and their sum: its Fig. 5.

Above, the scores, each scaled to [0, 1] over the candidates; below, their sum, with the chosen layer filled.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import (
    METHOD_COLOURS,
    NEUTRAL,
    layer_axis,
    new_figure,
    one_row_each,
    require,
    styled,
    tint,
)

SUM = "sum"
# Tol, "muted", without its two for harmful and harmless.
LOOKS = {"consistency": ("#332288", "o"), "separability": ("#999933", "s"), "margin": ("#CC6677", "^")}
# Points, one for each score: with few candidates lines coincide, and a wide one is seen on both sides of a thin one.
WIDTHS = (4.2, 2.6, 1.2)


@styled
def layer_scores_and_sum(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the three scores and their sum over layers.

    Args:
        frame: columns layer, score ("consistency", "separability", "margin", "sum"), value, selected (bool, on
            the rows of the one layer that was chosen).
        title: says which model, or whose numbers.
    """
    require(frame, ["layer", "score", "value", "selected"], figure="layer_scores_and_sum")
    one_row_each(frame, ["score", "layer"], figure="layer_scores_and_sum")
    names = set(frame["score"])
    if names != {*LOOKS, SUM}:
        raise ValueError(f"layer_scores_and_sum needs the scores {[*LOOKS, SUM]}, received {sorted(names)}")
    chosen = sorted(set(frame.loc[frame["selected"].astype(bool), "layer"]))
    if len(chosen) != 1:
        raise ValueError(f"layer_scores_and_sum needs one selected layer, received {chosen}")
    (layer,) = chosen
    figure = new_figure(3.9)
    above, below = figure.subplots(2, 1, sharex=True)
    for (name, (colour, marker)), width in zip(LOOKS.items(), WIDTHS, strict=True):
        line = frame[frame["score"] == name].sort_values("layer")
        above.plot(
            line["layer"],
            line["value"],
            label=name,
            color=colour,
            marker=marker,
            linewidth=width,
            markersize=4 + width,
        )
    above.margins(y=0.1)
    scaled = frame.loc[frame["score"] != SUM, "value"].between(-1e-6, 1 + 1e-6).all()
    above.set_ylabel("score, scaled\nto 0–1" if scaled else "score")
    above.grid(True, axis="y")
    if title:
        above.set_title(title)
    total = frame[frame["score"] == SUM]
    colour = METHOD_COLOURS["MARS"]
    for at, value in zip(total["layer"], total["value"], strict=True):
        below.bar(at, value, width=0.7, color=colour if at == layer else tint(colour, strength=0.35))
    (best,) = total.loc[total["layer"] == layer, "value"]
    below.annotate(
        f"layer {layer:g}", (layer, max(best, 0.0)), xytext=(0, 2), textcoords="offset points", ha="center",
        va="bottom", fontweight="bold",
    )  # fmt: skip
    below.margins(y=0.2)
    below.set_ylabel("sum of the three")
    below.set_xlabel("candidate layer")
    above.axvline(layer, color=NEUTRAL, linewidth=1.0, linestyle=":", zorder=0)
    layer_axis(below, frame["layer"])
    handles, labels = above.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.8)
    return figure
