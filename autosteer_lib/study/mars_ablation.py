"""Chapter 05: what each part of MARS adds, what each reading changes, and how many neutral pictures it takes.

variants     MARS without one of its parts (Table 8)
readings     MARS with another answer to one question that the paper leaves open (mars_readings.py)
centres      the same step around other centres: none, the neutral mean, the surface's own mean
neutral      the centre estimated from N neutral pictures and clips (Table 9)
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

from autosteer_lib.defences import Defence, Mars, Undefended
from autosteer_lib.layer_scores import SCORES
from autosteer_lib.metrics import Rate
from autosteer_lib.study.layers import labelled
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import first_of
from autosteer_lib.study.sweeps import sweep, sweep_prompts
from autosteer_lib.trust_region import trust_region_step

PICTURES = ("hades/neutral", "image", "combination")
FULL, UNDEFENDED = "full", "undefended"  # Table 8's rows, as `mars_paper_numbers.ablation` names them too


def sights(study: Study, *, clips: bool = True) -> list[str]:
    """Surfaces that the ablation is shown on: a harmful picture beside neutral words, and each kind of sight with twins.

    The paper's are the two sides of ViSU, which is among no published sets here; of its own attacks HADES comes nearest,
    and has no harmless side.
    """
    twinned = first_of(study, ("image", "combination"), *(["video"] if clips else []), twins=True)
    return list(dict.fromkeys([*first_of(study, PICTURES), *twinned]))


def variants(study: Study) -> dict[str, Defence]:
    """Table 8: the plain model, MARS, and MARS without each of its parts."""
    mars = study.mars()
    return {
        UNDEFENDED: Undefended(),
        FULL: mars,
        "no layer selection": mars.retuned(every_layer=True),
        "no centring": mars.retuned(recentre=False),
        "no ReLU": mars.retuned(rectified=False),
        **{f"no {score}": mars.retuned(without=(score,)) for score in SCORES},
    }


def readings(study: Study) -> dict[str, Defence]:
    """The default reading and, one at a time, every other answer to an open question."""
    mars = study.mars()
    default = mars.reading
    of_clips = {"clips: centred on pictures": replace(default, video_centre="pictures")}
    changes = {
        "text centroids: less the neutral mean": replace(default, text_centre="neutral"),
        "text centroids: as they are": replace(default, text_centre="none"),
        "positions: each its own step": replace(default, positions="each"),
        "positions: the last alone": replace(default, positions="last_only"),
        **(of_clips if study.mllm.sees_videos else {}),
        "candidates: the last block too": replace(default, candidates="plotted"),
        "candidates: all layers": replace(default, candidates="all"),
        "scaling: over all layers": replace(default, scaling="all_layers"),
        "scaling: none": replace(default, scaling="none"),
    }
    retuned: dict[str, Defence] = {name: mars.retuned(reading=reading) for name, reading in changes.items()}
    printed = study.mars(reading=replace(default, separability="as_printed"))
    return {FULL: mars, **retuned, "separability: as printed": printed}


def every_layer_alone(study: Study) -> dict[str, Defence]:
    """MARS at each layer in turn: was the chosen one the best?"""
    mars = study.mars()
    return {str(layer): mars.retuned(layer=layer) for layer in range(study.mllm.layers)}


def by_neutral_count(study: Study) -> dict[str, Defence]:
    """Table 9: the centres from the first N neutral pictures and clips; 0 does not re-centre."""
    mars, data = study.mars(), study.text_data
    sights = {"image": data.pictures, "video": data.clips}
    states = {modality: study.outputs(some) for modality, some in sights.items() if some}
    found: dict[str, Defence] = {}
    for count in study.profile.mars.neutral_counts:
        centres = {modality: some[:count].double().mean(0).float() for modality, some in states.items()}
        found[str(count)] = mars.recentred_on(centres) if count else mars.retuned(recentre=False)
    return found


def ablation(study: Study, defences: dict[str, Defence], *, surfaces: list[str]) -> pd.DataFrame:
    """Refusals and utility under each of the defences, and the layer that each steers.

    Returns:
        variant, layer, surface, measure, rate, low, high, n.
    """
    table = sweep(study, defences, sweep_prompts(study, surfaces=surfaces))
    table.insert(1, "layer", table["variant"].map({name: _layer(d) for name, d in defences.items()}))
    return table


def centre_and_step(study: Study, *, surfaces: list[str]) -> pd.DataFrame:
    """Two things hang on the centre: whether the gate opens, and how long the step then is.

    For each surface at MARS' layer: no centre, the neutral mean, the surface's own mean over attacks and twins (a
    yardstick: it looks at the test prompts).

    Returns:
        surface, centre, harmful, opens (share), low, high (of it), n, step (mean length where it opens), to_boundary (mean
        way along the direction from the state to the middle between the centroids).
    """
    mars = study.mars()
    layer, centroids = mars.layer_, mars.centroids_
    direction = mars.direction[layer]
    rows = []
    for surface in surfaces:
        prompts = labelled(study, surface)
        states = study.outputs(prompts)[:, layer]
        harmful = torch.tensor([bool(p.harmful) for p in prompts])
        centres = {
            "none": torch.zeros_like(states),
            "neutral": mars.centres(prompts, layer=layer),
            "own mean": states.mean(0).expand_as(states),
        }
        for name, centre in centres.items():
            of_texts = torch.zeros_like(direction) if name == "none" else centroids.pooled[layer]
            refused, accepted = centroids.refused[layer] - of_texts, centroids.accepted[layer] - of_texts
            step = trust_region_step(
                (states - centre).unsqueeze(1), direction=direction, refused=refused, accepted=accepted
            )
            opens, length = step.moves[:, 0], step.vector[:, 0].norm(dim=-1)
            way = (refused + accepted) / 2 @ direction - step.projection[:, 0]
            for side in (True, False):
                mine = harmful == side
                moved = length[mine & opens]
                opened = Rate.of(opens[mine].tolist()).as_row()
                rows.append(
                    {
                        "surface": surface,
                        "centre": name,
                        "harmful": side,
                        "opens": opened.pop("rate"),
                        **opened,
                        "step": moved.mean().item() if len(moved) else 0.0,
                        "to_boundary": way[mine].mean().item(),
                    }
                )
    return pd.DataFrame(rows)


def _layer(defence: Defence) -> str:
    if not isinstance(defence, Mars):
        return "none"
    return "all" if defence.every_layer else str(defence.layer_)
