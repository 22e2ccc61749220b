"""Cosines between the contrast vectors of all pairs, one panel a layer: AutoSteer's Fig. 5, 11 and 12.

Warm all over means that every pair moves the state in the same direction: the layer knows what "harmful"
is. One scale for all panels, centred at 0, so that panels can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from autosteer_lib.plotting.style import DIVERGING, grid_shape, new_figure, styled


@styled
def contrast_cosine_heatmaps(
    cosines: Mapping[int, Float[np.ndarray | Tensor, "pairs pairs"]],
    *,
    columns: int = 4,
    label: str = "cosine of δᵢ and δⱼ",
) -> Figure:
    """Draw the matrices.

    Args:
        cosines: layer → matrix with entries in [−1, 1].
        columns: panels a row.
        label: of the shared colour bar.
    """
    if not cosines:
        raise ValueError("contrast_cosine_heatmaps received no layer: nothing to draw")
    for layer, matrix in cosines.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
            raise ValueError(
                f"layer {layer}: a square matrix of two pairs or more is needed, received {matrix.shape}"
            )
    rows, columns = grid_shape(len(cosines), columns=columns)
    figure = new_figure(0.2 + rows * (0.45 + 5.4 / max(columns, 3)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(cosines):
            axes.set_visible(False)
            continue
        layer, matrix = list(cosines)[index], np.asarray(list(cosines.values())[index])
        pairs = len(matrix)
        sns.heatmap(
            matrix, ax=axes, cmap=DIVERGING, vmin=-1, vmax=1, cbar=False, square=True, rasterized=True,
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
    bar = figure.colorbar(
        panels[0, 0].collections[0], ax=panels, aspect=25, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1]
    )
    bar.set_label(label)
    bar.ax.set_yticklabels(["−1", "−0.5", "0", "0.5", "1"])
    bar.outline.set_visible(False)
    return figure
