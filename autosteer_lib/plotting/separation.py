"""How far the text direction parts harmful from harmless states, by layer: MARS' Fig. 2b and 6.

    separation(ℓ) = mean cos(h_ℓ − c, d̂_ℓ) over harmful requests − the same over harmless ones      (eq. 3)

Two lines a panel: c = 0 (raw) and c = the mean of neutral sights (re-centred). The states themselves, before and
after, are drawn by `states.centred_states`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    LIGHT,
    METHOD_COLOURS,
    NEUTRAL,
    grid_shape,
    hang_labels,
    layer_axis,
    line_with_band,
    new_figure,
    one_row_each,
    require,
    styled,
)

# Re-centring is MARS' step, so it has MARS' colour; what is there without it is grey.
LOOKS = {"raw": (NEUTRAL, "o"), "re-centred": (METHOD_COLOURS["MARS"], "^")}


@styled
def separation_by_layer(frame: pd.DataFrame, *, columns: int = 3) -> Figure:
    """Draw the separation score over layers, one panel a surface, on one scale.

    Args:
        frame: columns layer, surface, centring ("raw", "re-centred"), separation (of [−2, 2]); optionally low, high.
        columns: panels a row.
    """
    require(frame, ["layer", "surface", "centring", "separation"], figure="separation_by_layer")
    unknown = sorted(set(frame["centring"]) - set(LOOKS))
    if unknown:
        raise ValueError(f"centring {unknown} is not known; allowed: {list(LOOKS)}")
    one_row_each(frame, ["surface", "centring", "layer"], figure="separation_by_layer")
    surfaces = list(dict.fromkeys(frame["surface"]))
    rows, columns = grid_shape(len(surfaces), columns=columns)
    figure = new_figure(0.55 + 1.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index >= len(surfaces):
            axes.set_visible(False)
            continue
        axes.axhline(0, color=LIGHT, linewidth=1.0, zorder=0)
        here = frame[frame["surface"] == surfaces[index]]
        for centring, (colour, marker) in LOOKS.items():
            line = here[here["centring"] == centring]
            line_with_band(axes, line, x="layer", y="separation", colour=colour, marker=marker)
        axes.set_title(surfaces[index])
        last_of_column = index + columns >= len(surfaces)
        axes.set_xlabel("layer" if last_of_column else "")
        axes.tick_params(labelbottom=last_of_column)
        axes.set_ylabel("separation\n(difference of cosines)" if index % columns == 0 else "")
        axes.grid(True, axis="y")
        layer_axis(axes, frame["layer"])
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.8)
    hang_labels(figure, list(panels.flat)[: len(surfaces)], columns=columns)
    return figure
