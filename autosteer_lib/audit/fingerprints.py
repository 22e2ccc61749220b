"""Rows of real sets as hashes: enough to see what two sets share, and nothing of what they say.

    exact     h(text)                    the text to the last byte
    folded    h(casefold(text))          letter case aside
    words     h(w₁ w₂ …)                 its words in order: letter case, white space and punctuation aside
    beside    h(picture or context)      what stands beside the text, by id or by bytes; "" where nothing does

h is SHA-256, the first 16 of its 64 hexadecimal digits: 64 bits, so that among 10,000 texts any two agree by chance
once in 10¹¹ such sets. A hash lets somebody who already has a text find it here; it does not give the text to
somebody who has not. That is why there are no MinHash signatures: each of their numbers is the hash of *one word*, and
a dictionary turns it back. Near-duplicates are measured where the texts are, and kept as numbers (likeness.py).

data/audit/<set>.csv, one row a row of the set: split, row (counted from 0 in its file), kind (a label of the set's
own that says nothing of the content), and the four above.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parents[2] / "data" / "audit"
KEYS = ("exact", "folded", "words", "beside")
COLUMNS = ("split", "row", "kind", *KEYS)
NEAREST = "nearest"  # data/audit/nearest.csv is likeness.py's
_DIGITS = 16
_WORD = re.compile(r"\w+(?:'\w+)*")


@dataclass(frozen=True, kw_only=True)
class RealRow:
    """One row of a real set, in memory only."""

    split: str
    row: int
    text: str
    beside: str = ""
    """Id or hash of its picture, or the words of its context."""
    kind: str = ""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in order, in lower case; an apostrophe inside a word belongs to it."""
    return tuple(_WORD.findall(text.casefold().replace("’", "'")))


def digest(text: str) -> str:
    """The first 64 bits of the SHA-256 of a text, in hexadecimal; "" of nothing."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:_DIGITS] if text else ""


def fingerprints(rows: Iterable[RealRow]) -> pd.DataFrame:
    """One line a row, with `COLUMNS`."""
    lines = [
        {
            "split": row.split,
            "row": row.row,
            "kind": row.kind,
            "exact": digest(row.text),
            "folded": digest(row.text.casefold()),
            "words": digest(" ".join(words_of(row.text))),
            "beside": digest(row.beside),
        }
        for row in rows
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def available(*, folder: Path = FOLDER) -> tuple[str, ...]:
    """Sets whose fingerprints are committed."""
    return tuple(sorted(path.stem for path in folder.glob("*.csv") if path.stem != NEAREST))


def load_fingerprints(name: str, *, split: str | None = None, folder: Path = FOLDER) -> pd.DataFrame:
    """The committed fingerprints of a set.

    Args:
        name: one of `available()`.
        split: one of the set's splits; None takes all.
        folder: where the files lie.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(available(folder=folder)) or "none"
        raise ValueError(
            f"no fingerprints of {name!r}; there are: {known}. Make them from the set's rows by "
            "`python -m autosteer_lib.audit --rows <folder>`"
        )
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(frame.columns) != COLUMNS:
        raise ValueError(f"{path.name} has the columns {list(frame.columns)}; they must be {list(COLUMNS)}")
    frame["row"] = frame["row"].astype(int)
    if split is None:
        return frame
    chosen = frame[frame["split"] == split].reset_index(drop=True)
    if chosen.empty:
        splits = ", ".join(dict.fromkeys(frame["split"]))
        raise ValueError(f"{name} has no split {split!r}; there are: {splits}")
    return chosen
