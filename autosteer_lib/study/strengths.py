"""Chapter 05, the preliminary study of MARS: a fixed strength, layer by layer and factor by factor.

    h̄ = h + α ⟨h, d̂⟩ d̂      α = 1 at every layer (Fig. 1a); α ∈ {0, 1, 2, 3} at the best of them (Fig. 1b)

The best layer is the one where refusals of attacks lead those of their twins by most. It is chosen here on the
prompts that it is shown on, as in the paper's figure: it describes, and no defence is built on it.
"""

from __future__ import annotations

import pandas as pd

from autosteer_lib.defences import FixedStrength
from autosteer_lib.study.study import Study
from autosteer_lib.study.sweeps import HARMFUL, sweep, sweep_prompts
from autosteer_lib.study.transfer import NEUTRAL, RAW


def by_layer(study: Study, *, surfaces: list[str], alpha: float) -> pd.DataFrame:
    """Refusals under one fixed strength at each layer.

    Returns:
        centring, layer, alpha, surface, harmful, rate, low, high, n.
    """
    mars = study.mars()
    prompts = sweep_prompts(study, surfaces=surfaces, utility=False)
    tables = []
    for centring in (RAW, NEUTRAL):
        variants = {
            str(layer): FixedStrength(mars, layer=layer, alpha=alpha, recentre=centring == NEUTRAL)
            for layer in range(study.mllm.layers)
        }
        table = sweep(study, variants, prompts)
        tables.append(table.assign(centring=centring, layer=table["variant"].astype(int), alpha=alpha))
    found = pd.concat(tables, ignore_index=True)
    found["harmful"] = found["measure"] == HARMFUL
    return found[["centring", "layer", "alpha", "surface", "harmful", "rate", "low", "high", "n"]]


def best_layer(table: pd.DataFrame) -> int:
    """Layer of `by_layer` at which attacks lead twins by most, the mean over surfaces and the lowest of equals."""
    sides = table.groupby(["layer", "harmful"])["rate"].mean().unstack()
    lead = (sides[True] - sides[False]).round(9)
    return int(lead.index[int(lead.argmax())])


def by_strength(study: Study, *, surfaces: list[str], layer: int, recentre: bool) -> pd.DataFrame:
    """Refusals and utility at one layer over α, 0 being the plain model.

    Returns:
        alpha, surface, measure, rate, low, high, n.
    """
    mars = study.mars()
    variants = {
        str(alpha): FixedStrength(mars, layer=layer, alpha=alpha, recentre=recentre)
        for alpha in (0.0, *study.profile.mars.alphas)
    }
    table = sweep(study, variants, sweep_prompts(study, surfaces=surfaces))
    table.insert(0, "alpha", table.pop("variant").astype(float))
    return table
