"""What two tables of fingerprints share, and what one of them holds more than once.

    shared    rows of `of` whose hash occurs in `among`: "95 of the 500 test queries are training queries"
    repeated  rows of one table whose hash an earlier row of it has: 500 rows, 479 texts

Both count rows, not distinct texts: a rate is over rows. An empty hash (nothing beside the text) matches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from autosteer_lib.audit.fingerprints import KEYS


@dataclass(frozen=True, kw_only=True)
class Shared:
    """How many rows of one table another one holds."""

    rows: int
    n: int
    distinct: int
    """Different hashes among those rows."""


def in_other(of: pd.DataFrame, among: pd.DataFrame, *, by: str) -> Bool[np.ndarray, " rows"]:
    """Which rows of `of` have a hash that `among` has too."""
    _check(by)
    return (of[by].ne("") & of[by].isin(set(among[by]))).to_numpy(dtype=bool)


def shared(of: pd.DataFrame, among: pd.DataFrame, *, by: str) -> Shared:
    """Count the rows of `of` that `among` holds, by one of KEYS."""
    found = in_other(of, among, by=by)
    return Shared(rows=int(found.sum()), n=len(of), distinct=int(of.loc[found, by].nunique()))


def repeated(table: pd.DataFrame, *, by: str) -> Shared:
    """Count the rows that an earlier row of the same table equals."""
    _check(by)
    again = table[by].ne("") & table.duplicated(by)
    return Shared(
        rows=int(again.sum()), n=len(table), distinct=int(table.loc[table[by].ne(""), by].nunique())
    )


def _check(by: str) -> None:
    if by not in KEYS:
        raise ValueError(f"fingerprints have no {by!r}; compare by one of {', '.join(KEYS)}")
