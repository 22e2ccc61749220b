"""Chapter 02: SAS by layer with an interval, the cosines behind it, and how many pairs it takes.

The interval is the jackknife's, which a mean over pairs of pairs allows in closed form. With
T = Σ u_i the score without pair i needs ‖T − u_i‖² only, so all N leave-one-out scores cost O(N·d):

    SAS_(−i) = (‖T − u_i‖² − (N − 1)) / ((N − 1)(N − 2)),   se² = (N − 1)/N · Σ (SAS_(−i) − mean)²

All layers are scored on the same pairs, so intervals that overlap do not say that two layers are alike: `behind` is the
lead of the chosen layer over another, with the jackknife of the *difference*. (Of a winner that was picked by these
very pairs, leads near zero say little.)

Source: AutoSteer §3.2 for the score; the interval is this project's addition.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.sas import contrast_cosines, safety_awareness_score, sas_by_pair_count, select_layer
from autosteer_lib.study.study import Study

_NORMAL_95 = 1.96


def contrast_states(study: Study, pairs: ContrastPairs | None = None) -> tuple[Tensor, Tensor]:
    """States of the toxic and the safe sides, [pairs, layers, dim] each."""
    pairs = pairs or study.data.pairs
    return study.states(pairs.toxic), study.states(pairs.safe)


def sas_table(study: Study) -> pd.DataFrame:
    """SAS of each candidate layer with its 95 % interval.

    Returns:
        layer, sas, low, high, behind (the chosen layer's score less this one), behind_low, behind_high, pairs, chosen.
    """
    toxic, safe = contrast_states(study)
    scores = safety_awareness_score(toxic, safe, layers=study.layers)
    chosen = select_layer(scores, study.layers)
    column = study.layers.index(chosen)
    error = _NORMAL_95 * jackknife_error(toxic, safe)
    behind, unsure = scores[column] - scores, _NORMAL_95 * jackknife_error(toxic, safe, against=column)
    return pd.DataFrame(
        {
            "layer": study.layers,
            "sas": scores.numpy(),
            "low": (scores - error).numpy(),
            "high": (scores + error).numpy(),
            "behind": behind.numpy(),
            "behind_low": (behind - unsure).numpy(),
            "behind_high": (behind + unsure).numpy(),
            "pairs": len(toxic),
            "chosen": [layer == chosen for layer in study.layers],
        }
    )


def jackknife_error(
    toxic: Float[Tensor, "pairs layers dim"],
    safe: Float[Tensor, "pairs layers dim"],
    *,
    against: int | None = None,
) -> Float[Tensor, " layers"]:
    """Standard error over the draw of pairs of each layer's SAS, or of its difference from that of the column `against`."""
    units = normalize((toxic - safe).double(), dim=-1)
    n, total = len(units), units.sum(0)
    rest = (total - units).square().sum(-1)
    without = (rest - (n - 1)) / ((n - 1) * (n - 2))
    if against is not None:
        without = without - without[:, [against]]
    return ((n - 1) / n * (without - without.mean(0)).square().sum(0)).sqrt()


def sas_by_pairs(study: Study) -> pd.DataFrame:
    """SAS over the number of pairs: from how many on is the layer the same?

    Returns:
        pairs, layer, sas, chosen.
    """
    toxic, safe = contrast_states(study)
    # A published set may have fewer pairs than were asked for.
    counts = sorted({min(count, len(toxic)) for count in study.profile.evaluation.pair_counts})
    scores = sas_by_pair_count(toxic, safe, counts=counts, layers=study.layers)
    return pd.DataFrame(
        [
            {
                "pairs": count,
                "layer": layer,
                "sas": score,
                "chosen": layer == select_layer(row, study.layers),
            }
            for count, row in zip(counts, scores, strict=True)
            for layer, score in zip(study.layers, row.tolist(), strict=True)
        ]
    )


def heatmaps(
    study: Study, *, pairs: int, double_cosine: bool = False
) -> dict[int, Float[Tensor, "pairs pairs"]]:
    """Cosines between the first contrasts, by layer (Fig. 5 and 11)."""
    toxic, safe = contrast_states(study)
    return {
        layer: contrast_cosines(toxic[:pairs, column], safe[:pairs, column], double_cosine=double_cosine)
        for column, layer in enumerate(study.layers)
    }


def heatmap_summary(maps: dict[int, Float[Tensor, "pairs pairs"]]) -> pd.DataFrame:
    """What a heat-map shows, in numbers: mean and spread of its upper triangle.

    Returns:
        layer, mean_cosine, std, share_positive.
    """
    rows = []
    for layer, cosines in maps.items():
        upper = cosines[torch.ones_like(cosines).triu(diagonal=1).bool()].numpy()
        rows.append(
            {
                "layer": layer,
                "mean_cosine": float(np.mean(upper, dtype=np.float64)),
                "std": float(np.std(upper, dtype=np.float64)),
                "share_positive": float(np.mean(upper > 0)),
            }
        )
    return pd.DataFrame(rows)
