"""A paired test from two rates alone: McNemar's p-value as bounds.

Two methods answered the same n prompts, a of them unsafe under one and b under the other. Which prompts is not
published, so how many changed is not known: at least |a − b| (all one way), at most a + b, or 2n − a − b if that is
less (no prompt unsafe under both, or none safe under both).

    p_least = 2 · P(Binomial(|a − b|, ½) = 0)         p_most: the same test with the most changes

The p-value grows with the changes at the same difference, so every table that is possible lies between the two. The
test knows of prompts alone: another seed, another wording or another judge is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from scipy.stats import binomtest

ALPHA = 0.05
Verdict: TypeAlias = Literal["beyond noise", "depends on the pairs", "within noise"]


@dataclass(frozen=True)
class PairedBounds:
    """McNemar's exact two-sided p-value for the fewest and for the most prompts that can have changed."""

    p_least: float
    p_most: float

    @property
    def verdict(self) -> Verdict:
        """ "beyond noise" if every table is significant at 5 %, "within noise" if none is."""
        if self.p_most < ALPHA:
            return "beyond noise"
        return "depends on the pairs" if self.p_least < ALPHA else "within noise"


def paired_bounds(first: int, second: int, *, n: int) -> PairedBounds:
    """The bounds for two counts of the same n prompts."""
    if not (0 <= first <= n and 0 <= second <= n):
        raise ValueError(f"counts {first} and {second} of n = {n}; both must lie in 0…n")
    least = abs(first - second)
    most = min(first + second, 2 * n - first - second)
    return PairedBounds(_p(least, least), _p((most + least) // 2, most))


def _p(one_way: int, changed: int) -> float:
    return float(binomtest(one_way, changed, 0.5).pvalue) if changed else 1.0
