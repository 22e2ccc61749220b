"""A rate over rows that are not independent: test prompts about a few things, several of each.

    p      = k / n                                             as without clusters
    design = G/(G − 1) · Σ_g (Σ_{i ∈ g} (y_i − p))² / (n p (1 − p))     variance over that of n independent rows
    n_eff  = n / max(design, 1) · (z / t_{G−1})²               t: G clusters know their own spread badly
    [low, high] = Wilson's interval of p with n_eff in the place of n, and at least up to what none of G would leave
                  open, and down to what all of G would

Rows of one thing tend to share a fate: a gate that misses "acid" misses it in every sentence and colour. Wilson's
interval over all n rows then says how well these very things are known, and this one how well any such things are.
Where all outcomes are equal no spread can be seen; the design effect is NaN, and n_eff is the number of clusters. A
single success shows none either (its design effect is about 1 whatever the truth), so it must not narrow what no success
leaves open: hence the two bounds.

Measured, 300 draws each: 4 things in 120 rows, 10 in 120, 14 in 960, their rates drawn from five beta distributions with
means of 20 to 71 % and from five in which most things have next to none. This interval (nominally 95 %) covered the mean
in 93 to 100 %, Wilson's over all rows in 0 to 85 %. There each thing had about as many rows. Of the world's 960 attacks
four of fourteen things hold 730, and all tell as much as six of one size, (Σn)²/Σn². With those numbers of rows it covers
86 to 95 % where all rates are drawn alike, and 94 to 100 % where the surfaces differ as measured in chapter 07, for their
differences count as spread.

Source: Korn and Graubard 1998, with Wilson's interval in the place of the exact one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from autosteer_lib.metrics import CONFIDENCE, Rate


@dataclass(frozen=True)
class ClusteredRate:
    """A rate, with the interval that its clusters allow."""

    rate: Rate
    """The rate over all rows, with Wilson's interval as if they were independent."""
    clusters: int
    design: float
    """How many times larger the variance is than that of independent rows; NaN where all outcomes are equal."""
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Sequence[bool], clusters: Sequence[Hashable]) -> ClusteredRate:
        """Count the true ones, cluster by cluster.

        Raises:
            ValueError: other numbers of outcomes and clusters, or fewer than two clusters.
        """
        if len(outcomes) != len(clusters):
            raise ValueError(
                f"{len(outcomes)} outcomes in {len(clusters)} clusters' rows: name one cluster a row"
            )
        rate, names = Rate.of(outcomes), sorted({repr(cluster) for cluster in clusters})
        count = len(names)
        if count < 2:
            raise ValueError(
                f"{count} cluster: how clusters differ cannot be seen; give rows of at least two, or take Rate.of"
            )
        p, n = rate.value, rate.n
        place = {name: index for index, name in enumerate(names)}
        beyond = np.zeros(count)
        for outcome, cluster in zip(outcomes, clusters, strict=True):
            beyond[place[repr(cluster)]] += outcome - p
        design = float("nan")
        effective = float(count)
        if 0 < p < 1:
            design = float(count / (count - 1) * np.square(beyond).sum() / (n * p * (1 - p)))
            quantile = 0.5 + CONFIDENCE / 2
            effective = n / max(design, 1.0) * float(norm.ppf(quantile) / t.ppf(quantile, count - 1)) ** 2
        low, high = _wilson(p, effective)
        least, most = _wilson(1.0, float(count))[0], _wilson(0.0, float(count))[1]
        return cls(rate, count, design, min(low, least), max(high, most))


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's interval for a number of rows that need not be whole."""
    z = float(norm.ppf(0.5 + CONFIDENCE / 2))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float(max(min(middle - half, p), 0.0)), float(min(max(middle + half, p), 1.0))
