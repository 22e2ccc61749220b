"""States of prompts in the plane of their two main components, a panel a layer.

Colour says harmful or harmless, the marker says through which channel it came: where colours part while
markers mix, the layer knows harm whatever its channel; where markers part, it knows the channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from torch import Tensor

from autosteer_lib.plotting.style import HARMFUL, HARMLESS, NEUTRAL, grid_shape, new_figure, require, styled
from autosteer_lib.plotting.sweeps import SERIES_MARKERS


def project_states(
    states: Float[np.ndarray | Tensor, "prompts layers dim"],
    *,
    layers: Sequence[int],
    harmful: Sequence[bool],
    modality: Sequence[str],
) -> pd.DataFrame:
    """Project each layer's states on its own two main components.

    Returns:
        The table `state_pca` draws: layer, prompt, pc1, pc2, harmful, modality, explained (share of the
        layer's variance that the plane holds). Signs are fixed so that harmful lies to the right.
    """
    states = np.asarray(states, dtype=np.float64)
    if states.ndim != 3 or states.shape[:2] != (len(harmful), len(layers)) or len(modality) != len(harmful):
        raise ValueError(
            f"states of {states.shape} do not fit {len(harmful)} prompts, {len(modality)} modalities and "
            f"{len(layers)} layers"
        )
    is_harmful = np.asarray(harmful, dtype=bool)
    tables = []
    for index, layer in enumerate(layers):
        pca = PCA(2, svd_solver="full")
        plane = pca.fit_transform(states[:, index])
        # a component's sign is arbitrary and differs between linear algebra libraries
        if is_harmful.any() and not is_harmful.all():
            gap = plane[is_harmful].mean(0) - plane[~is_harmful].mean(0)
            plane = plane * np.where(gap < 0, -1.0, 1.0)
        tables.append(
            pd.DataFrame({
                "layer": layer, "prompt": range(len(plane)), "pc1": plane[:, 0], "pc2": plane[:, 1],
                "harmful": is_harmful, "modality": list(modality),
                "explained": float(pca.explained_variance_ratio_.sum()),
            })
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


@styled
def state_pca(points: pd.DataFrame, *, columns: int = 3) -> Figure:
    """Draw the scatter.

    Args:
        points: columns layer, pc1, pc2, harmful, modality; optionally explained. See `project_states`.
        columns: panels a row.
    """
    require(points, ["layer", "pc1", "pc2", "harmful", "modality"], figure="state_pca")
    layers = sorted(set(points["layer"].tolist()))
    modalities = list(dict.fromkeys(points["modality"]))
    if len(modalities) > len(SERIES_MARKERS):
        raise ValueError(
            f"{len(modalities)} modalities are too many markers; draw at most {len(SERIES_MARKERS)}"
        )
    rows, columns = grid_shape(len(layers), columns=columns)
    figure = new_figure(0.5 + rows * 2.2)
    panels = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(layers):
            axes.set_visible(False)
            continue
        here = points[points["layer"] == layers[index]]
        for (harmful, modality), group in here.groupby(["harmful", "modality"], sort=False):
            axes.plot(
                group["pc1"], group["pc2"], linestyle="", marker=SERIES_MARKERS[modalities.index(modality)], markersize=4.2,
                markerfacecolor=HARMFUL if harmful else HARMLESS, markeredgecolor="white", markeredgewidth=0.4, alpha=0.7,
                rasterized=True,
            )  # fmt: skip
        share = f", {100 * here['explained'].iloc[0]:.0f} % of variance" if "explained" in here else ""
        axes.set_title(f"layer {layers[index]:g}{share}")
        axes.set(xticks=[], yticks=[])  # units of a hidden state mean nothing to a reader
        axes.set_xlabel("component 1" if index + columns >= len(layers) else "")
        axes.set_ylabel("component 2" if index % columns == 0 else "")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name)
        for name, colour in (("harmful", HARMFUL), ("harmless", HARMLESS))
    ] + [
        Line2D([], [], marker=marker, linestyle="", color="white", markeredgecolor=NEUTRAL, label=name)
        for name, marker in zip(modalities, SERIES_MARKERS, strict=False)
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(len(handles), 6),
        handletextpad=0.1,
        columnspacing=1.2,
    )
    return figure
