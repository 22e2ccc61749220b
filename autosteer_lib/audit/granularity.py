"""Which percentages n answers can give at all: 29.3 % of 500 answers is no number of answers.

    possible(p, n)   is there a whole k with 100 k / n in the interval that p stands for?
    by_chance(n, d)  the share of all numbers with d digits that n answers can give; near 1 the test says nothing

Known as GRIM (Brown and Heathers 2017) for means of whole scores. It finds slips of the pen, and rates over another
number of rows than the one stated, as when answers failed and were dropped. It says nothing of intent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from autosteer_lib.audit.printed import Interval, interval


def counts(percent: Interval, n: int) -> range:
    """The whole numbers of answers, of n, whose percentage lies in the interval."""
    if n < 1:
        raise ValueError(f"n = {n}; a rate needs at least one answer")
    first = max(math.ceil(percent.low * n / 100), 0)
    return range(first, max(min(math.floor(percent.high * n / 100), n) + 1, first))


def possible(percent: str, n: int) -> bool:
    """Whether n answers can give this percentage, as printed."""
    return len(counts(interval(percent), n)) > 0


def by_chance(n: int, *, digits: int) -> float:
    """How many of the numbers from 0 to 100 with so many digits n answers can give, as a share."""
    numbers = 100 * 10**digits + 1
    return min(1.0, (n + 1) / numbers)


def digits_of(percent: str) -> int:
    """How many digits stand after the point."""
    return len(percent.partition(".")[2])


def sizes(percents: Sequence[str], among: Iterable[int]) -> pd.DataFrame:
    """How many of these percentages each n can give, and how many it would by chance.

    Returns:
        n, possible, by_chance, cells.
    """
    parts = [(interval(p), digits_of(p)) for p in percents]
    rows = [
        {
            "n": n,
            "possible": sum(len(counts(part, n)) > 0 for part, _ in parts),
            "by_chance": sum(by_chance(n, digits=digits) for _, digits in parts),
            "cells": len(parts),
        }
        for n in among
    ]
    return pd.DataFrame(rows, columns=["n", "possible", "by_chance", "cells"])
