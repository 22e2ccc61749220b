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
    layer_axis,
    line_with_band,
    one_row_each,
    require,
    small_multiples,
    styled,
)

# Re-centring is MARS' step, so it has MARS' colour; what is there without it is grey.
LOOKS = {"raw": (NEUTRAL, "o"), "re-centred": (METHOD_COLOURS["MARS"], "^")}


@styled
def separation_by_layer(frame: pd.DataFrame) -> Figure:
    """Draw the separation score over layers, one panel a surface, on one scale.

    Args:
        frame: columns layer, surface, centring ("raw", "re-centred"), separation (of [−2, 2]); optionally low, high.
    """
    require(frame, ["layer", "surface", "centring", "separation"], figure="separation_by_layer")
    unknown = sorted(set(frame["centring"]) - set(LOOKS))
    if unknown:
        raise ValueError(f"centring {unknown} is not known; allowed: {list(LOOKS)}")
    one_row_each(frame, ["surface", "centring", "layer"], figure="separation_by_layer")
    surfaces = list(dict.fromkeys(frame["surface"]))
    figure, panels = small_multiples(len(surfaces), columns=3, head=0.55, row=1.7, sharex=True, sharey=True)
    for panel, surface in zip(panels, surfaces, strict=True):
        axes, here = panel.axes, frame[frame["surface"] == surface]
        axes.axhline(0, color=LIGHT, linewidth=1.0, zorder=0)
        for centring, (colour, marker) in LOOKS.items():
            line = here[here["centring"] == centring]
            line_with_band(axes, line, x="layer", y="separation", colour=colour, marker=marker)
        axes.set_title(surface)
        axes.set_xlabel("layer" if panel.lowest else "")
        axes.tick_params(labelbottom=panel.lowest)
        axes.set_ylabel("separation\n(difference of cosines)" if panel.leftmost else "")
        axes.grid(True, axis="y")
        layer_axis(axes, frame["layer"])
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.8)
    return figure
