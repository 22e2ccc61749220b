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

from autosteer_lib.plotting.style import SEQUENTIAL, grid_shape, hang_labels, headline, new_figure, styled

FEW = 0.05  # of all cells: so many may lie below the scale
STEP = 0.25  # where more do, it starts at a multiple of this


@styled
def contrast_cosine_heatmaps(
    cosines: Mapping[int, Float[np.ndarray | Tensor, "pairs pairs"]],
    *,
    columns: int = 4,
    label: str = "cosine of δᵢ and δⱼ",
    title: str = "",
) -> Figure:
    """Draw the matrices.

    Args:
        cosines: layer → matrix with entries in [−1, 1].
        columns: panels a row.
        label: of the shared colour bar.
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
    rows, columns = grid_shape(len(cosines), columns=columns)
    figure = new_figure((0.45 if title else 0.2) + rows * (0.45 + 5.4 / max(columns, 3)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(cosines):
            axes.set_visible(False)
            continue
        layer, matrix = list(cosines)[index], np.asarray(list(cosines.values())[index])
        pairs = len(matrix)
        sns.heatmap(
            matrix, ax=axes, cmap=f"{SEQUENTIAL}_r", vmin=low, vmax=1, cbar=False, square=True, rasterized=True,
            xticklabels=False, yticklabels=False,
        )  # fmt: skip
        mean = (float(np.sum(matrix)) - float(np.trace(matrix))) / (pairs * (pairs - 1))
        axes.set_title(f"layer {layer}\nmean {mean:.2f}".replace("-", "−"))
        axes.set_xticks([0.5, pairs - 0.5], ["1", str(pairs)])
        axes.set_yticks([0.5, pairs - 0.5], ["1", str(pairs)] if index % columns == 0 else ["", ""])
        axes.tick_params(length=0, rotation=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("pair i" if index % columns == 0 else "")
        axes.set_xlabel("pair j" if index + columns >= len(cosines) else "")
    ticks = np.arange(low, 1 + 1e-9, STEP)
    bar = figure.colorbar(
        panels[0, 0].collections[0], ax=panels, aspect=25, pad=0.02, ticks=ticks,
        extend="min" if low > max(-1.0, every.min()) else "neither",
    )  # fmt: skip
    bar.set_label(label)
    bar.ax.set_yticklabels([f"{tick:g}".replace("-", "−") for tick in ticks])
    bar.outline.set_visible(False)
    headline(figure, title)
    hang_labels(figure, list(panels.flat)[: len(cosines)], columns=columns)
    return figure


def _scale_start(cosines: np.ndarray) -> float:
    """0, or the multiple of STEP below all but the lowest FEW of them."""
    return float(np.clip(np.floor(np.quantile(cosines, FEW) / STEP) * STEP, -1, 0))
