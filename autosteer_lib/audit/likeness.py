"""How alike two texts are by their words, and which row of a set is the nearest to a text.

    J(a, b) = |words(a) ∩ words(b)| / |words(a) ∪ words(b)|          Jaccard; order and repetition aside
    nearest(a) = max over b of J(a, b),  b ≠ a itself

1 is the same words, perhaps in another order. The number is made where the texts are and kept in
data/audit/nearest.csv: one line a row, with the row that is nearest. A number of three digits gives no word away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.sparse import csr_matrix

from autosteer_lib.audit.fingerprints import FOLDER, NEAREST, RealRow, words_of

COLUMNS = ("of", "against", "row", "nearest", "likeness")
_DIGITS = 3
_BLOCK = 500  # rows at a time: 500 × 3,000 numbers are 12 MB


def likenesses(of: Sequence[str], against: Sequence[str]) -> Float[np.ndarray, "of against"]:
    """J of every text with every other."""
    every = dict.fromkeys(word for texts in (of, against) for text in texts for word in words_of(text))
    vocabulary = {word: column for column, word in enumerate(every)}
    left, right = (_bags(texts, vocabulary) for texts in (of, against))
    shared = (left @ right.T).toarray()
    union = (
        np.asarray(left.sum(axis=1)).reshape(-1, 1) + np.asarray(right.sum(axis=1)).reshape(1, -1) - shared
    )
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def nearest(of: Sequence[RealRow], against: Sequence[RealRow]) -> pd.DataFrame:
    """The most alike row of `against` for each row of `of`; a row is never its own neighbour.

    Returns:
        row, nearest (its row), likeness (to three digits). The first of equals is taken.
    """
    texts = [row.text for row in against]
    same = {(row.split, row.row): position for position, row in enumerate(against)}
    found = []
    for start in range(0, len(of), _BLOCK):
        block = of[start : start + _BLOCK]
        table = likenesses([row.text for row in block], texts)
        for position, row in enumerate(block):
            own = same.get((row.split, row.row)) if of is against else None
            if own is not None:
                table[position, own] = -1.0
            best = int(table[position].argmax())
            found.append((row.row, against[best].row, round(float(table[position, best]), _DIGITS)))
    return pd.DataFrame(found, columns=["row", "nearest", "likeness"])


def load_nearest(of: str, against: str, *, folder: Path = FOLDER) -> pd.DataFrame:
    """The committed neighbours of one split in another.

    Args:
        of: "<set>/<split>".
        against: likewise; the same one for what a split holds nearly twice.
        folder: where nearest.csv lies.
    """
    frame = pd.read_csv(folder / f"{NEAREST}.csv")
    if tuple(frame.columns) != COLUMNS:
        raise ValueError(f"{NEAREST}.csv has the columns {list(frame.columns)}; they must be {list(COLUMNS)}")
    chosen = frame[(frame["of"] == of) & (frame["against"] == against)]
    if chosen.empty:
        pairs = frame[["of", "against"]].drop_duplicates()
        known = "; ".join(f"{a} in {b}" for a, b in zip(pairs["of"], pairs["against"], strict=True))
        raise ValueError(f"{of!r} was not compared with {against!r}; there are: {known}")
    return chosen.reset_index(drop=True)


def _bags(texts: Sequence[str], vocabulary: dict[str, int]) -> csr_matrix:
    rows, columns = [], []
    for position, text in enumerate(texts):
        for word in dict.fromkeys(words_of(text)):
            rows.append(position)
            columns.append(vocabulary[word])
    return csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(texts), max(len(vocabulary), 1)), dtype=float
    )
