"""Chapter 05, first half: does the direction of texts tell harm in pictures and clips, and where?

    separation   mean cos(h − c, d̂) over attacks − over twins       c: nothing, or the mean of neutral sights
    sign         is ⟨h − c, d̂⟩ > 0? MARS' gate, at every layer

States are those at the output of each block, at the last prompt token. The surface's own mean is shown beside the
neutral one: nobody has it before the test, so it is a yardstick and no method.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from autosteer_lib.defences import Mars
from autosteer_lib.directions import separation
from autosteer_lib.metrics import Rate
from autosteer_lib.plotting import project_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.layers import labelled
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import twinned

RAW, NEUTRAL, OWN = "raw", "re-centred", "own mean"
CENTRINGS = (RAW, NEUTRAL, OWN)
NORMAL = 1.96  # standard errors to either side of a mean: 95 %


def sights(study: Study) -> list[str]:
    """Surfaces with something to see and harmless twins in the same words."""
    return [s for s in twinned(study) if study.data.test(group="attack", surface=s)[0].modality != "text"]


def separations(study: Study) -> pd.DataFrame:
    """MARS' separation score (eq. 3) by layer, raw and re-centred, with the normal 95 % interval of two samples.

    An attack and its twin share their words, so of pairs the interval would be narrower. One prompt has no interval (NaN).

    Returns:
        surface, centring, layer, separation, low, high, n (attacks; as many twins).
    """
    mars, rows = study.mars(), []
    for surface in twinned(study):
        prompts = labelled(study, surface)
        for centring in (RAW, NEUTRAL):
            harmful, harmless = _sides(centred(study, prompts, centring=centring), prompts)
            scores = separation(harmful, harmless, mars.direction)
            half = _half_width(harmful, harmless, mars.direction)
            bounds = zip(scores.tolist(), (scores - half).tolist(), (scores + half).tolist(), strict=True)
            of = {"surface": surface, "centring": centring}
            rows += [
                {**of, "layer": layer, "separation": score, "low": low, "high": high, "n": len(harmful)}
                for layer, (score, low, high) in enumerate(bounds)
            ]
    return pd.DataFrame(rows)


def _half_width(harmful: Tensor, harmless: Tensor, direction: Tensor) -> Float[Tensor, " layers"]:
    if min(len(harmful), len(harmless)) < 2:
        return torch.full((len(direction),), torch.nan)
    cosines = [torch.cosine_similarity(side, direction, dim=-1) for side in (harmful, harmless)]
    return NORMAL * torch.stack([side.var(dim=0) / len(side) for side in cosines]).sum(dim=0).sqrt()


def signs(study: Study) -> pd.DataFrame:
    """Share of attacks, and of harmless twins, on which MARS' gate would open at each layer.

    Returns:
        surface, centring, harmful, layer, rate, low, high, n.
    """
    mars, rows = study.mars(), []
    for surface in twinned(study):
        prompts = labelled(study, surface)
        for centring in CENTRINGS:
            states = centred(study, prompts, centring=centring)
            opens = torch.einsum("nld,ld->nl", states, mars.direction) > 0
            for harmful, side in zip((True, False), _sides(opens, prompts), strict=True):
                rows += [
                    {
                        "surface": surface,
                        "centring": centring,
                        "harmful": harmful,
                        "layer": layer,
                        **Rate.of(side[:, layer].tolist()).as_row(),
                    }
                    for layer in range(side.shape[1])
                ]
    return pd.DataFrame(rows)


def components(study: Study, *, layers: Sequence[int], surfaces: Sequence[str]) -> pd.DataFrame:
    """States on the two main components of each layer, before and after re-centring, of these surfaces where attacked.

    Returns:
        centring, and the columns of `plotting.project_states`.
    """
    prompts = [p for surface in study.data.attacked(surfaces) for p in labelled(study, surface)]
    tables = [
        project_states(
            centred(study, prompts, centring=centring)[:, list(layers)],
            layers=layers,
            harmful=[bool(p.harmful) for p in prompts],
            modality=[p.surface for p in prompts],
        ).assign(centring=centring)
        for centring in (RAW, NEUTRAL)
    ]
    return pd.concat(tables, ignore_index=True)


def layer_choice(mars: Mars) -> pd.DataFrame:
    """The three scores of each candidate layer as they are added, their sum, and which layer it chose.

    Returns:
        score, layer, value, raw (unscaled; the sum has none), selected.
    """
    scaled = mars.scores_.scaled(mars.candidates, scaling=mars.reading.scaling)
    raw = {name: getattr(mars.scores_, name) for name in scaled}
    total = torch.stack(list(scaled.values())).sum(0)
    rows: list[dict[str, object]] = [
        {"score": name, "layer": layer, "value": float(values[layer]), "raw": float(raw[name][layer])}
        for name, values in scaled.items()
        for layer in mars.candidates
    ]
    rows += [{"score": "sum", "layer": layer, "value": float(total[layer])} for layer in mars.candidates]
    return pd.DataFrame(rows).assign(selected=lambda table: table["layer"] == mars.layer_)


def centred(study: Study, prompts: Sequence[Prompt], *, centring: str) -> Float[Tensor, "prompts layers dim"]:
    """States of the prompts less the centre that is asked for."""
    states = study.outputs(prompts)
    if centring == RAW:
        return states
    if centring == OWN:
        return states - states.double().mean(0).float()
    mars = study.mars()
    centres = [mars.centres(prompts, layer=layer) for layer in range(states.shape[1])]
    return states - torch.stack(centres, dim=1)


def _sides(values: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    harmful = torch.tensor([bool(p.harmful) for p in prompts])
    return values[harmful], values[~harmful]
