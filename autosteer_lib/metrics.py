"""Rates with their uncertainty, and paired tests between two defences on the same prompts.

    rate      k / n with Wilson's 95 % interval, which stays inside [0, 1] and has a width at k = 0:
              an attack success rate of 0 of 40 is "at most 9 %", not "none"
    McNemar   on the pairs (a_i, b_i) of one prompt under two defences only the discordant ones speak:
              gained = #(¬a ∧ b), lost = #(a ∧ ¬b);  p = P(Binomial(gained + lost, ½) as extreme), exact
    κ         agreement of two judges beyond chance: κ = (p_o − p_e) / (1 − p_e), with p_o the share of rows that they
              agree on and p_e what their rates alone would give (Cohen 1960)
    Holm      p-values of m comparisons, adjusted step down: p̃_(i) = max_{j≤i} min(1, (m − j + 1)·p_(j))

The papers report bare percentages of one run; the intervals and tests are this project's addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rate:
    """`successes` of `n`, with Wilson's interval. An empty sample has no rate: value and bounds are NaN."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 0 or not 0 <= self.successes <= self.n:
            raise ValueError(
                f"{self.successes} successes of {self.n} is no rate: 0 ≤ successes ≤ n is needed"
            )

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """Count the true ones."""
        values = _outcomes(outcomes, "outcomes")
        return cls(int(values.sum()), len(values))

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else float("nan")

    @property
    def low(self) -> float:
        return self.interval()[0]

    @property
    def high(self) -> float:
        return self.interval()[1]

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        return _wilson(self.successes, self.n, confidence) if self.n else (float("nan"), float("nan"))

    def as_row(self) -> dict[str, float | int]:
        """rate, low, high, n: the columns that tables and figures share."""
        return {"rate": self.value, "low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n = {self.n}"


@dataclass(frozen=True)
class McNemar:
    """An exact McNemar test of a → b."""

    gained: int
    """Prompts false under a and true under b."""
    lost: int
    """Prompts true under a and false under b."""
    p: float
    """Two-sided; 1.0 where no prompt changed."""


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Test whether b differs from a on the same prompts, in the same order."""
    first, second = _outcomes(a, "a"), _outcomes(b, "b")
    if len(first) != len(second):
        raise ValueError(
            f"a has {len(first)} outcomes and b has {len(second)}: McNemar's test is paired, so give both "
            f"defences the same prompts in the same order"
        )
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    return McNemar(gained, lost, _sign_test(gained, gained + lost))


@dataclass(frozen=True)
class Kappa:
    """Cohen's κ of two judges, with a 95 % interval.

    The interval is Wilson's of p_o, carried through κ with p_e held fixed: it has a width where the judges agree on
    every row, and covered κ in 94 to 99 % of 800 draws at n = 20, 60, 200 and five 2×2 tables; that of the
    asymptotic variance (Fleiss, Cohen and Everitt 1969) in 18 to 95 %. Where both judges say the same of every row,
    chance explains all: κ and its bounds are NaN.
    """

    agreed: Rate
    """p_o: rows that both judge alike."""
    chance: float
    """p_e."""

    @property
    def value(self) -> float:
        return self._of(self.agreed.value)

    @property
    def low(self) -> float:
        return self._of(self.agreed.low)

    @property
    def high(self) -> float:
        return self._of(self.agreed.high)

    def _of(self, agreed: float) -> float:
        # κ is never below −1; p_e near 1 would carry the bound far beyond
        return max((agreed - self.chance) / (1 - self.chance), -1.0) if self.chance < 1 else float("nan")


def cohens_kappa(a: Sequence[bool], b: Sequence[bool]) -> Kappa:
    """κ of two judges on the same rows, in the same order."""
    first, second = _outcomes(a, "a"), _outcomes(b, "b")
    if len(first) != len(second):
        raise ValueError(
            f"a has {len(first)} outcomes and b has {len(second)}: give both judges the same rows in the same order"
        )
    if not len(first):
        return Kappa(Rate(0, 0), float("nan"))
    shares = first.mean(), second.mean()
    return Kappa(
        Rate.of((first == second).tolist()), float(shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1]))
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for having made several comparisons. NaN (no comparison) stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p-values must lie in [0, 1], received {p[(p < 0) | (p > 1)].tolist()}")
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    remaining = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(remaining * p[order]), 1.0)
    return [float(value) for value in adjusted]


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counted half."""
    values, labels = np.asarray(scores, dtype=float), _outcomes(positive, "positive")
    if len(values) != len(labels):
        raise ValueError(f"{len(values)} scores for {len(labels)} labels: one label a score is needed")
    if labels.all() or not labels.any():
        raise ValueError(
            f"all {len(labels)} labels are {bool(labels.all())}: both harmful and harmless prompts are needed"
        )
    return float(roc_auc_score(labels, values))


# A table asks for the same few counts hundreds of times, and scipy takes a millisecond for each.
@cache
def _wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    bounds = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    # rounding can leave a bound at −1e-17 or a hair beyond the rate itself when k is 0 or n
    rate = successes / n
    return min(max(float(bounds.low), 0.0), rate), max(min(float(bounds.high), 1.0), rate)


@cache
def _sign_test(gained: int, changed: int) -> float:
    return float(binomtest(gained, changed, 0.5).pvalue) if changed else 1.0


def _outcomes(values: Iterable[bool], name: str) -> np.ndarray:
    array = np.asarray(list(values))
    if array.size == 0:
        return np.zeros(0, dtype=bool)
    # NaN and None are truthy or crash later; a missing outcome must be dropped by the caller, visibly
    if array.ndim != 1 or not all(isinstance(value, bool | np.bool_) for value in array.tolist()):
        raise TypeError(f"{name} must be a flat sequence of booleans without gaps, received {array[:5]!r} …")
    return array.astype(bool)
