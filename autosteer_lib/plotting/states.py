"""States of prompts in the plane of their two main components, a panel a layer; before and after re-centring.

Colour says harmful or harmless, the marker says through which channel it came: where colours part while
markers mix, the layer knows harm whatever its channel; where markers part, it knows the channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from torch import Tensor

from autosteer_lib.plotting.style import (
    HARMFUL,
    HARMLESS,
    NEUTRAL,
    SURFACE_MARKERS,
    new_figure,
    require,
    small_multiples,
    styled,
)  # fmt: skip
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
def state_pca(points: pd.DataFrame) -> Figure:
    """Draw the scatter.

    Args:
        points: columns layer, pc1, pc2, harmful, modality; optionally explained. See `project_states`.
    """
    require(points, ["layer", "pc1", "pc2", "harmful", "modality"], figure="state_pca")
    layers = sorted(set(points["layer"].tolist()))
    markers = surface_markers(points["modality"])
    figure, panels = small_multiples(len(layers), columns=3, head=0.5, row=2.2)
    for panel, layer in zip(panels, layers, strict=True):
        axes, here = panel.axes, points[points["layer"] == layer]
        _scatter(axes, here, markers=markers)
        axes.set_title(f"layer {layer:g}{_explained(here)}")
        axes.set_xlabel("component 1" if panel.lowest else "")
        axes.set_ylabel("component 2" if panel.leftmost else "")
    _legend(figure, markers)
    return figure


@styled
def centred_states(points: pd.DataFrame) -> Figure:
    """Draw the scatter before and after re-centring, a row a layer: MARS' Fig. 2a and 7–9.

    Args:
        points: columns layer, centring ("raw" and another), pc1, pc2, harmful, modality; optionally explained. Each
            panel has the plane that `project_states` was given its states for; order of centrings kept.
    """
    require(points, ["layer", "centring", "pc1", "pc2", "harmful", "modality"], figure="centred_states")
    layers = sorted(set(points["layer"].tolist()))
    centrings = list(dict.fromkeys(points["centring"]))
    markers = surface_markers(points["modality"])
    figure = new_figure(0.5 + len(layers) * 2.1)
    panels = figure.subplots(len(layers), len(centrings), squeeze=False)
    for row, layer in enumerate(layers):
        for column, centring in enumerate(centrings):
            axes = panels[row, column]
            here = points[(points["layer"] == layer) & (points["centring"] == centring)]
            _scatter(axes, here, markers=markers)
            axes.set_title(f"layer {layer:g}, {centring}{_explained(here)}")
            axes.set_xlabel("component 1" if row == len(layers) - 1 else "")
            axes.set_ylabel("component 2" if column == 0 else "")
    _legend(figure, markers)
    return figure


def surface_markers(names: Iterable[str]) -> dict[str, str]:
    """A surface's own marker; others take what is left."""
    modalities = list(dict.fromkeys(names))
    markers = {name: SURFACE_MARKERS[name] for name in modalities if name in SURFACE_MARKERS}
    others = [name for name in modalities if name not in markers]
    free = [marker for marker in SERIES_MARKERS if marker not in markers.values()]
    if len(others) > len(free):
        raise ValueError(
            f"{len(modalities)} modalities are too many markers; draw at most {len(markers) + len(free)}"
        )
    markers |= dict(zip(others, free, strict=False))
    return {name: markers[name] for name in modalities}


def _scatter(axes: Axes, points: pd.DataFrame, *, markers: Mapping[str, str]) -> None:
    for (harmful, modality), group in points.groupby(["harmful", "modality"], sort=False):
        axes.plot(
            group["pc1"], group["pc2"], linestyle="", marker=markers[str(modality)], markersize=4.2,
            markerfacecolor=HARMFUL if harmful else HARMLESS, markeredgecolor="white", markeredgewidth=0.4, alpha=0.7,
            rasterized=True,
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])  # units of a hidden state mean nothing to a reader


def _explained(points: pd.DataFrame) -> str:
    known = "explained" in points and len(points) > 0
    return f", {100 * points['explained'].iloc[0]:.0f} % of variance" if known else ""


def _legend(figure: Figure, markers: Mapping[str, str]) -> None:
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name)
        for name, colour in (("harmful", HARMFUL), ("harmless", HARMLESS))
    ] + [
        Line2D([], [], marker=marker, linestyle="", color="white", markeredgecolor=NEUTRAL, label=name)
        for name, marker in markers.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(len(handles), 6),
        handletextpad=0.1,
        columnspacing=1.2,
    )
