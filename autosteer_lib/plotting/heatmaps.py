"""Cosines between the contrast vectors of all pairs, one panel a layer: AutoSteer's Fig. 5, 11 and 12.

Dark all over means that every pair moves the state in the same direction: the layer knows what "harmful" is; a light
stripe is a pair that differs. One scale for all panels, so that they can be compared: from 0 to 1, where few cosines
lie below 0 (they take its end's colour, and the bar an arrow). From −1 on, all of a layer that knows (0.4 … 1) would
have nearly one colour.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from autosteer_lib.plotting.style import SEQUENTIAL, headline, small_multiples, styled

COLUMNS = 4
FEW = 0.05  # of all cells: so many may lie below the scale
STEP = 0.25  # where more do, it starts at a multiple of this


@styled
def contrast_cosine_heatmaps(
    cosines: Mapping[int, Float[np.ndarray | Tensor, "pairs pairs"]],
    *,
    title: str = "",
) -> Figure:
    """Draw the matrices.

    Args:
        cosines: layer → matrix with entries in [−1, 1].
        title: says which model was measured.
    """
    if not cosines:
        raise ValueError("contrast_cosine_heatmaps received no layer: nothing to draw")
    for layer, matrix in cosines.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
            raise ValueError(
                f"layer {layer}: a square matrix of two pairs or more is needed, received {matrix.shape}"
            )
    every = np.concatenate([np.asarray(matrix).ravel() for matrix in cosines.values()])
    low = _scale_start(every)
    row = 0.45 + 5.4 / np.clip(len(cosines), 3, COLUMNS)  # a panel is square
    figure, panels = small_multiples(len(cosines), columns=COLUMNS, head=0.45 if title else 0.2, row=row)
    for panel, (layer, given) in zip(panels, cosines.items(), strict=True):
        axes, matrix = panel.axes, np.asarray(given)
        pairs = len(matrix)
        sns.heatmap(
            matrix, ax=axes, cmap=f"{SEQUENTIAL}_r", vmin=low, vmax=1, cbar=False, square=True, rasterized=True,
            xticklabels=False, yticklabels=False,
        )  # fmt: skip
        mean = (float(np.sum(matrix)) - float(np.trace(matrix))) / (pairs * (pairs - 1))
        axes.set_title(f"layer {layer}\nmean {mean:.2f}".replace("-", "−"))
        axes.set_xticks([0.5, pairs - 0.5], ["1", str(pairs)])
        axes.set_yticks([0.5, pairs - 0.5], ["1", str(pairs)] if panel.leftmost else ["", ""])
        axes.tick_params(length=0, rotation=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("pair i" if panel.leftmost else "")
        axes.set_xlabel("pair j" if panel.lowest else "")
    ticks = np.arange(low, 1 + 1e-9, STEP)
    bar = figure.colorbar(
        panels[0].axes.collections[0], ax=figure.axes, aspect=25, pad=0.02, ticks=ticks,
        extend="min" if low > max(-1.0, every.min()) else "neither",
    )  # fmt: skip
    bar.set_label("cosine of δᵢ and δⱼ")
    bar.ax.set_yticklabels([f"{tick:g}".replace("-", "−") for tick in ticks])
    bar.outline.set_visible(False)
    headline(figure, title)
    return figure


def _scale_start(cosines: np.ndarray) -> float:
    """0, or the multiple of STEP below all but the lowest FEW of them."""
    return float(np.clip(np.floor(np.quantile(cosines, FEW) / STEP) * STEP, -1, 0))
