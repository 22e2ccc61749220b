"""What a reported rate can be on the rows that are left when some are set aside: bounds, not estimates.

    k successes of n, m rows set aside, n − m left:
        low  = max(0, k − m) / (n − m)      all that were set aside had succeeded, as far as there were so many
        high = min(k, n − m) / (n − m)      none of them had

Which rows succeeded is not published, so nothing between the two can be excluded. Of two methods on the same rows the
difference lies between low(a) − high(b) and high(a) − low(b): both extremes can be had at once, since the two methods'
verdicts on a row are free of each other. If even the least difference is large, the rows set aside do not explain it.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosteer_lib.metrics import Rate


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The least and the greatest rate on the rows that are left."""

    low: Rate
    high: Rate

    @property
    def n(self) -> int:
        return self.low.n


def bounds(successes: int, *, n: int, excluded: int) -> Bounds:
    """Bounds of the rate on the rows that are left.

    Args:
        successes: of all n rows.
        n: rows that the rate was reported on.
        excluded: rows set aside.

    Raises:
        ValueError: no row is left, or there are more successes than rows.
    """
    if not (0 <= successes <= n and 0 <= excluded < n):
        raise ValueError(
            f"{successes} successes of n = {n} with {excluded} rows set aside; needed are 0 ≤ successes ≤ n and "
            "0 ≤ excluded < n"
        )
    left = n - excluded
    return Bounds(low=Rate(max(0, successes - excluded), left), high=Rate(min(successes, left), left))


def difference_bounds(before: Bounds, after: Bounds) -> tuple[float, float]:
    """The least and the greatest fall from one rate to another on the same rows."""
    return before.low.value - after.high.value, before.high.value - after.low.value


def mean_bounds(mean: float, *, n: int, excluded: int) -> tuple[float, float]:
    """The same for a mean of n scores in [0, 1] (MM-Vet's are graded, not right or wrong)."""
    if not (0.0 <= mean <= 1.0 and 0 <= excluded < n):
        raise ValueError(
            f"mean {mean} of n = {n} with {excluded} set aside; needed are 0 ≤ mean ≤ 1 and 0 ≤ excluded < n"
        )
    total, left = mean * n, n - excluded
    return max(0.0, total - excluded) / left, min(total, left) / left
