"""What the papers report, as tables: data/reported/<paper>_<table>.csv, one row a number.

These numbers are other people's, measured on other models. They stand beside this project's own in
tables and figures, never mixed with them, and each row says how far to trust it (`TRUST`): a number
printed in a table is one thing, a point that a machine read off a curve another. Where a paper contradicts
itself, both numbers are kept as printed, and a `note` beside each says what stands against it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parent.parent / "data" / "reported"
COLUMNS = (
    "paper", "table", "model", "method", "dataset", "metric", "setting", "value", "unit", "trust", "source",
)  # fmt: skip
NOTE = "note"  # a last column that a file may have; "" where nothing stands against the number
TRUST = (
    "printed in a table",
    "printed in the wrong cell",
    "stated in the text",
    "printed as bar labels",
    "read by machine off a figure",
)
UNITS = {
    "percent": (-100.0, 100.0),
    "fraction": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "times": (0.0, 10_000.0),
    "layer": (0.0, 200.0),  # a decoder block, counted from 0; no published decoder has more
    "hours": (0.0, 10_000.0),
    "tokens per second": (0.0, 100_000.0),
}
OPTIONAL = ("setting",)


def available(*, paper: str = "autosteer", folder: Path = FOLDER) -> tuple[str, ...]:
    """The names `reported` knows for this paper."""
    return tuple(sorted(path.stem.removeprefix(f"{paper}_") for path in folder.glob(f"{paper}_*.csv")))


def reported(table: str, *, paper: str = "autosteer", folder: Path = FOLDER) -> pd.DataFrame:
    """Load one table of a paper's reported numbers, checked.

    Args:
        table: one of `available(paper=paper)`: "table1", "sas", …
        paper: whose.
        folder: where the CSV files lie.

    Returns:
        A frame with COLUMNS, `note` if the file has it, and one further column for each name in `setting`
        (name=value pairs separated by "; "): numbers as floats, words as they are.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such table, or one that does not keep to the columns.
    """
    path = folder / f"{paper}_{table}.csv"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist: the papers' numbers are no part of an installed package; name data/reported of a "
            "clone of the project as folder="
        )
    if not path.exists():
        known = ", ".join(available(paper=paper, folder=folder)) or "none"
        raise ValueError(f"no table {table!r} of reported numbers for paper {paper!r}; there are: {known}")
    frame = pd.read_csv(path, dtype={name: "string" for name in (*COLUMNS, NOTE) if name != "value"})
    _check(frame, path)
    if NOTE in frame:
        frame[NOTE] = frame[NOTE].fillna("")
    settings = pd.DataFrame([_settings(text) for text in frame["setting"]], index=frame.index)
    return frame.join(settings)


def _check(frame: pd.DataFrame, path: Path) -> None:
    if tuple(frame.columns) not in (COLUMNS, (*COLUMNS, NOTE)):
        raise ValueError(
            f"{path.name} has the columns {list(frame.columns)}; they must be {list(COLUMNS)}, "
            f"and {NOTE!r} may stand last"
        )
    problems: list[str] = []
    for position, row in enumerate(frame.to_dict("records"), start=2):  # line 1 is the header
        empty = [name for name in COLUMNS if name not in OPTIONAL and pd.isna(row[name])]
        if empty:
            problems.append(f"line {position}: {', '.join(empty)} is empty")
        elif row["trust"] not in TRUST:
            problems.append(f"line {position}: trust is {row['trust']!r}; allowed: {', '.join(TRUST)}")
        elif row["unit"] not in UNITS:
            problems.append(f"line {position}: unit is {row['unit']!r}; allowed: {', '.join(UNITS)}")
        elif not UNITS[row["unit"]][0] <= row["value"] <= UNITS[row["unit"]][1]:
            problems.append(
                f"line {position}: {row['value']} is outside {UNITS[row['unit']]} ({row['unit']})"
            )
    identity = [name for name in COLUMNS if name not in ("value", "trust", "source")]
    for index in frame.index[frame.duplicated(identity)]:
        problems.append(f"line {index + 2}: the same quantity is on an earlier line")
    if problems:
        raise ValueError(f"{path.name} is not fit for use: " + "; ".join(problems))


def _settings(text: object) -> dict[str, float | str]:
    if pd.isna(text):  # type: ignore[call-overload]
        return {}
    settings: dict[str, float | str] = {}
    for pair in str(text).split("; "):
        name, equals, value = pair.partition("=")
        if not equals or not name or name in (*COLUMNS, NOTE):
            raise ValueError(
                f"setting {text!r}: name=value pairs separated by '; ' are needed, names not in COLUMNS"
            )
        try:
            settings[name] = float(value)
        except ValueError:
            settings[name] = value
    return settings
