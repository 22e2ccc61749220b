"""The reviewer's question: are the regenerated numbers the committed ones?

Every table that a run wrote (build/<profile>/tables/*.csv) is held cell by cell against the committed one
(figures/*.csv). A cell that reads as a number on the committed side must be equal, or within the tolerance
that the committed manifest states for its column, together with the reason for it. Other cells (names,
answers) must be the same text. A table that is marked volatile (timings) is published but not compared.

    python -m autosteer_lib.verify --profile organism        exit code 0: all reproduced, 1: not, 2: cannot tell
"""

import argparse
import csv
import io
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autosteer_lib.committed import ANY_COLUMN, Committed, build_entries
from autosteer_lib.profiles import DEFAULT_PROFILE, load_profile
from autosteer_lib.provenance import repository_root

SHOWN = 20  # mismatches printed for one table; the rest is counted
ROUNDING = 1e-9  # of a tolerance: 0.3 − 0.2 must not count as more than 0.1


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One cell, or a row or column, that differs."""

    where: str
    committed: str
    regenerated: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.where}: committed {self.committed}, regenerated {self.regenerated} ({self.allowed})"


@dataclass(kw_only=True)
class TableVerdict:
    """What came of one table."""

    name: str
    numbers: int = 0
    reproduced: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    note: str = ""
    """Why nothing was compared, where nothing was."""

    @property
    def ok(self) -> bool:
        return not self.mismatches

    def __str__(self) -> str:
        if self.note:
            return f"{self.name}: {self.note}"
        texts = len(self.mismatches) - (self.numbers - self.reproduced)
        return f"{self.name}: {self.reproduced} of {self.numbers} numbers reproduced" + (
            f"; {texts} other differences" if texts > 0 else ""
        )


def as_number(cell: str) -> float | None:
    """The number that a cell holds, or None for text, an empty cell, and words like "nan"."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def compare_tables(
    name: str, committed: str, regenerated: str, *, tolerance: Mapping[str, float] | None = None
) -> TableVerdict:
    """Hold the CSV text of one table against the other's.

    Rows are paired by position and columns by name, because a table's order is part of what was computed.

    Args:
        name: the table's name, for the messages.
        committed: the reference; it decides which cells are numbers.
        regenerated: the new one.
        tolerance: largest absolute difference by column; `"*"` stands for every other column. Default: exact.
    """
    verdict = TableVerdict(name=name)
    old_header, old_rows = _parse(committed)
    new_header, new_rows = _parse(regenerated)

    def differ(where: str, old: str, new: str, allowed: str) -> None:
        verdict.mismatches.append(
            Mismatch(where=f"{name}, {where}", committed=old, regenerated=new, allowed=allowed)
        )

    for column in [column for column in new_header if column not in old_header]:
        differ(f"column {column}", "absent", "present", "the columns must be the same")
    for index in range(len(old_rows), len(new_rows)):
        differ(f"row {index + 1}{_label(new_rows[index])}", "absent", "present", "the rows must be the same")
    for index, old_row in enumerate(old_rows):
        new_row = new_rows[index] if index < len(new_rows) else None
        for column, old in zip(old_header, old_row, strict=True):
            new = None if new_row is None or column not in new_header else new_row[new_header.index(column)]
            number = as_number(old)
            allowed = (tolerance or {}).get(column, (tolerance or {}).get(ANY_COLUMN, 0.0))
            verdict.numbers += number is not None
            if _agree(old, new, allowed):
                verdict.reproduced += number is not None
                continue
            rule = "the same text" if number is None else f"±{allowed:g}" if allowed else "exactly the same"
            differ(
                f"row {index + 1}{_label(old_row)}, column {column}",
                old,
                "absent" if new is None else new,
                rule,
            )
    return verdict


def count_numbers(table: str) -> int:
    """How many cells of a CSV text are numbers."""
    return sum(as_number(cell) is not None for row in _parse(table)[1] for cell in row)


def verify_table(name: str, *, committed: Committed, regenerated: str, volatile: bool) -> TableVerdict:
    """One regenerated table against the committed one, or the reason why there is nothing to compare."""
    if volatile:
        return TableVerdict(name=name, note="differs from machine to machine, not compared")
    reference = committed.table(name)
    if reference is None:
        count = count_numbers(regenerated)
        if committed.available:
            return TableVerdict(name=name, note=f"not committed yet; {count} regenerated")
        return TableVerdict(
            name=name, note=f"no committed numbers for profile {committed.profile}; {count} regenerated"
        )
    return compare_tables(name, reference, regenerated, tolerance=committed.tolerance(name))


def verify_build(build: Path, committed: Committed) -> list[TableVerdict]:
    """Every regenerated table, and every committed one that was not regenerated."""
    entries = build_entries(build, "table")
    verdicts = [
        verify_table(
            name,
            committed=committed,
            regenerated=(build / "tables" / f"{name}.csv").read_text(encoding="utf-8"),
            volatile=bool(entry["volatile"]),
        )
        for name, entry in entries.items()
    ]
    for name in committed.table_names():
        reference = committed.table(name)
        if name in entries or committed.is_volatile(name) or reference is None:
            continue
        lost = Mismatch(
            where=name,
            committed="present",
            regenerated="absent",
            allowed="every committed table must be regenerated",
        )
        verdicts.append(TableVerdict(name=name, numbers=count_numbers(reference), mismatches=[lost]))
    # A table that a notebook makes but nobody published is a difference too, once there is anything to differ from.
    for verdict in verdicts:
        if committed.available and verdict.note.startswith("not committed"):
            verdict.mismatches.append(
                Mismatch(where=verdict.name, committed="absent", regenerated="present", allowed="publish it")
            )
    return sorted(verdicts, key=lambda verdict: verdict.name)


def report(verdicts: list[TableVerdict], committed: Committed) -> str:
    """The verdict in words: a line for each table, each mismatch, and the sum."""
    lines = []
    for verdict in verdicts:
        tolerance = {column: value for column, value in committed.tolerance(verdict.name).items() if value}
        reason = ""
        if tolerance and not verdict.note:
            within = ", ".join(
                f"±{value:g}" if column == ANY_COLUMN else f"{column} ±{value:g}"
                for column, value in tolerance.items()
            )
            reason = f"  (within {within}: {committed.reason(verdict.name)})"
        lines.append(f"{verdict}{reason}")
        lines += [f"    {mismatch}" for mismatch in verdict.mismatches[:SHOWN]]
        if len(verdict.mismatches) > SHOWN:
            lines.append(f"    … and {len(verdict.mismatches) - SHOWN} more")
    compared = sum(verdict.numbers for verdict in verdicts)
    reproduced = sum(verdict.reproduced for verdict in verdicts)
    if not committed.available:
        lines.append(f"no committed numbers for profile {committed.profile}: nothing to compare with")
    else:
        lines.append(f"{reproduced} of {compared} numbers reproduced")
        different = [verdict.name for verdict in verdicts if not verdict.ok]
        if different:
            lines.append(f"differing tables: {', '.join(different)}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.verify", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="default: %(default)s")
    name = parser.parse_args(arguments).profile
    try:
        profile = load_profile(name)
        root = repository_root()
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    build = root / "build" / profile.name
    if not build_entries(build, "table"):
        print(
            f"nothing has been regenerated yet: build/{profile.name} holds no tables; "
            f"run `make reproduce PROFILE={name}` first",
            file=sys.stderr,
        )
        return 2
    committed = Committed(root / "figures", build=build, profile=profile.name)
    verdicts = verify_build(build, committed)
    print(report(verdicts, committed))
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _parse(table: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(io.StringIO(table, newline=""))  # cells may hold line breaks
    return header, rows


def _agree(old: str, new: str | None, allowed: float) -> bool:
    if new is None:
        return False
    number, other = as_number(old), as_number(new)
    if number is None or other is None:
        return old == new
    return abs(number - other) <= allowed * (1 + ROUNDING)


def _label(row: list[str]) -> str:
    """The row's names, so that a person need not count rows."""
    names = [cell for cell in row if cell and as_number(cell) is None][:3]
    return f" ({', '.join(name if len(name) <= 30 else name[:29] + '…' for name in names)})" if names else ""


if __name__ == "__main__":
    sys.exit(main())
