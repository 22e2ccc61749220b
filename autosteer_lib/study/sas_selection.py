"""Chapter 02: SAS by layer with an interval, the cosines behind it, and how many pairs it takes.

The interval is the jackknife's, which a mean over pairs of pairs allows in closed form. Pairs about one thing are alike,
so each thing is left out with all of its pairs. With T = Σ u_i, and thing g of n_g pairs with the sum U_g, all G
leave-one-out scores cost O(N·d):

    SAS_(−g) = (‖T − U_g‖² − m) / (m (m − 1)),   m = N − n_g,   V = (G − 1)/G · Σ (SAS_(−g) − mean)²
    se²      = V(toxic things) + V(safe things) − V(both together), at least each of the first two

A pair shows two things where its twin is about another one, and is like its neighbours of either kind; what is alike in
both would be counted twice. Where no thing is named each pair stands for itself. The interval is ± t_{G−1} se, G of the
kind with fewer things: few know their own spread badly. All layers are scored on the same pairs, so intervals that
overlap do not say that two layers are alike: `behind` is the lead of the chosen layer over another, with the jackknife
of the *difference*. (Of a winner that was picked by these very pairs, leads near zero say little.)

Source: AutoSteer §3.2 for the score; the interval is this project's addition, its sum of three after Cameron, Gelbach and
Miller 2011.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor
from torch.nn.functional import normalize

from autosteer_lib.metrics import CONFIDENCE
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.prompts import Prompt
from autosteer_lib.sas import contrast_cosines, safety_awareness_score, sas_by_pair_count, select_layer
from autosteer_lib.study.study import Study


def contrast_states(study: Study, pairs: ContrastPairs | None = None) -> tuple[Tensor, Tensor]:
    """States of the toxic and the safe sides, [pairs, layers, dim] each."""
    pairs = pairs or study.data.pairs
    return study.states(pairs.toxic), study.states(pairs.safe)


def sas_table(study: Study) -> pd.DataFrame:
    """SAS of each candidate layer with its 95 % interval.

    Returns:
        layer, sas, low, high, behind (the chosen layer's score minus this one's), behind_low, behind_high, pairs, things
        and twin_things (left out in turn), chosen.
    """
    toxic, safe = contrast_states(study)
    scores = safety_awareness_score(toxic, safe, layers=study.layers)
    chosen = select_layer(scores, study.layers)
    column = study.layers.index(chosen)
    shown = _things(study.data.pairs.toxic), _things(study.data.pairs.safe)
    things, twin_things = (len(set(names)) for names in shown)
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2, min(things, twin_things) - 1))
    error = quantile * two_way_error(toxic, safe, groups=shown)
    behind = scores[column] - scores
    unsure = quantile * two_way_error(toxic, safe, groups=shown, against=column)
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
            "things": things,
            "twin_things": twin_things,
            "chosen": [layer == chosen for layer in study.layers],
        }
    )


def two_way_error(
    toxic: Float[Tensor, "pairs layers dim"],
    safe: Float[Tensor, "pairs layers dim"],
    *,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]],
    against: int | None = None,
) -> Float[Tensor, " layers"]:
    """`jackknife_error` where pairs are alike in two ways: by the first groups, and by the second.

    Args:
        toxic, safe, against: see `jackknife_error`.
        groups: for each of the two ways a name for each pair.
    """
    first, second, both = (
        jackknife_error(toxic, safe, groups=names, against=against).square()
        for names in (*groups, list(zip(*groups, strict=True)))
    )
    # The difference of three estimates may come out below each of them.
    return torch.maximum(first + second - both, torch.maximum(first, second)).sqrt()


def jackknife_error(
    toxic: Float[Tensor, "pairs layers dim"],
    safe: Float[Tensor, "pairs layers dim"],
    *,
    groups: Sequence[Hashable],
    against: int | None = None,
) -> Float[Tensor, " layers"]:
    """Standard error over the draw of groups of each layer's SAS, or of its difference from that of the column `against`.

    Args:
        toxic: states of the toxic sides.
        safe: of their twins, in the same order.
        groups: which pairs are left out together, a name for each pair; at least two groups, and two pairs beside each.
        against: column of the layer whose score is subtracted.
    """
    units = normalize((toxic - safe).double(), dim=-1)
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    of_pair = torch.tensor([names[group] for group in groups], device=units.device)
    count = len(names)
    sums = units.new_zeros(count, *units.shape[1:]).index_add_(0, of_pair, units)
    m = (len(units) - torch.bincount(of_pair, minlength=count))[:, None]
    without = ((units.sum(0) - sums).square().sum(-1) - m) / (m * (m - 1))
    if against is not None:
        without = without - without[:, [against]]
    return ((count - 1) / count * (without - without.mean(0)).square().sum(0)).sqrt()


def _things(prompts: Sequence[Prompt]) -> list[Hashable]:
    """What each is about; its number where it does not say, and for all where two things are no sample of things."""
    named: list[Hashable] = [p.metadata.get("thing", number) for number, p in enumerate(prompts)]
    return named if len(set(named)) > 2 else list(range(len(named)))


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
