"""A printed number is an interval: 18.29 stands for all that rounds to it, [18.285, 18.295].

    a − b, a / b and means of intervals are intervals again; a stated result agrees with its cells if the two overlap

So no tolerance is chosen: what the rounding of the cells allows is allowed, and nothing else. Bounds are exact
fractions, and both ends count as inside, since it is not known how a paper rounds a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

import pandas as pd

from autosteer_lib.reported import FOLDER, reported


@dataclass(frozen=True)
class Interval:
    """All values from low to high."""

    low: Fraction
    high: Fraction

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __truediv__(self, other: Interval) -> Interval:
        """Of intervals above 0: rates and their multiples."""
        if other.low <= 0 or self.low < 0:
            raise ValueError(f"{self} / {other}: a multiple of rates needs a rate above 0 below the line")
        return Interval(self.low / other.high, self.high / other.low)

    def distance(self, other: Interval) -> Fraction:
        """How far the two are apart; 0 where they overlap."""
        return max(self.low - other.high, other.low - self.high, Fraction(0))

    def __str__(self) -> str:
        return f"[{float(self.low):g}, {float(self.high):g}]"


def interval(text: str) -> Interval:
    """What a number stands for as it is printed; "2.0" and "2" are not the same."""
    try:
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)
    except (InvalidOperation, AssertionError):
        raise ValueError(f"{text!r} is no printed number, such as '18.29'") from None
    half = Fraction(Decimal(1).scaleb(min(exponent, 0))) / 2
    return Interval(Fraction(number) - half, Fraction(number) + half)


def mean(parts: Sequence[Interval], *, weights: Sequence[int] = ()) -> Interval:
    """The mean of intervals; with weights, over that many items each."""
    if not parts or (weights and len(weights) != len(parts)):
        raise ValueError(
            f"a mean of {len(parts)} parts with {len(weights)} weights; one weight a part is needed"
        )
    shares = weights or [1] * len(parts)
    pairs = list(zip(parts, shares, strict=True))
    total = sum(shares)
    return Interval(
        sum((p.low * w for p, w in pairs), Fraction(0)) / total,
        sum((p.high * w for p, w in pairs), Fraction(0)) / total,
    )


def printed(table: str, *, paper: str) -> pd.DataFrame:
    """A table of reported numbers with `printed`, each number's own text, beside `value`."""
    frame = reported(table, paper=paper)
    path = FOLDER / f"{paper}_{table}.csv"
    texts = pd.read_csv(path, dtype=str, usecols=["value"], keep_default_na=False)["value"]
    return frame.assign(printed=texts.to_list())
