"""What a notebook makes: tables as CSV, figures as PNG and SVG, each with a record of what made it.

    artefacts = Artefacts.open(profile, out=out, facts={"model": …, "seed": seed})
    artefacts.table(rates, "table1", tolerance=0.01, reason="one answer of 120 may flip between CPUs")
    artefacts.figure(draw(rates), "table1_rates", tables=["table1"])
    artefacts.verify("table1")                     → table1: 54 of 54 numbers reproduced

Everything is written into build/<profile>/ (tables/, figures/, manifest/); `publish` copies it to figures/.
The bytes of a table or figure depend on its content only: no dates, no random ids, fixed float digits.
"""

import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.figure import Figure

from autosteer_lib.arguments import check_given
from autosteer_lib.committed import ANY_COLUMN, MANIFEST, Committed, build_entries, write_bytes, write_text
from autosteer_lib.profiles import load_profile
from autosteer_lib.provenance import Provenance, hash_text, provenance, repository_root
from autosteer_lib.verify import count_numbers, verify_table

DIGITS = 8  # significant; float32 carries about 7, so nothing is lost and no noise is printed
DPI = 150  # a 6-inch figure is 900 pixels wide: sharp in a README, small in git
NOTEBOOK_VARIABLE = "AUTOSTEER_NOTEBOOK"  # set by the driver: which notebook is running
TIMINGS = "timings.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


class Artefacts:
    """The tables and figures of one build."""

    def __init__(
        self, build: Path, committed: Path, *, profile: str, facts: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            build: where this run writes, build/<profile>.
            committed: the folder of published artefacts, figures/.
            profile: the profile's name; only that of the published manifest has numbers to compare with.
            facts: what the numbers were measured on (model, revision, seed, dtype, batch size …), stored with
                each artefact.
        """
        self.build = build
        self.committed = committed
        self.profile = profile
        self.facts = dict(facts or {})
        self._provenance: Provenance | None = None
        self._left_out: dict[str, str] = {}

    @classmethod
    def open(
        cls, profile: str | Path, *, out: str | Path = "", facts: Mapping[str, Any] | None = None
    ) -> "Artefacts":
        """For a notebook's parameters: `out` empty means build/<profile> of this checkout.

        A build elsewhere goes by its folder's name, so that what it holds is compared with the committed
        numbers only if that is the profile they were made under.
        """
        root = repository_root()
        build = Path(out).resolve() if out else root / "build" / load_profile(profile).name
        return cls(build, root / "figures", profile=build.name, facts=facts)

    def table(
        self,
        table: pd.DataFrame,
        name: str,
        *,
        tolerance: float | Mapping[str, float] = 0.0,
        reason: str = "",
        volatile: bool = False,
        empty: str = "",
    ) -> pd.DataFrame:
        """Write `table` (its columns, not its index) as CSV and return it for display.

        Args:
            table: tidy; move an index that carries meaning into columns first (`reset_index`).
            name: file name without ending: lower case, digits, underscores.
            tolerance: largest absolute difference that still counts as reproduced, for all columns or by
                column (`"*"` for the rest).
            reason: why that much may differ; required as soon as a tolerance is not zero.
            volatile: published but never compared (timings, memory).
            empty: why there may be no rows, on other models or prompts; a table without any is then not written, and
                this is printed instead.

        Raises:
            TypeError: no table.
            ValueError: a name, an index or a tolerance that cannot be written; says what to change.
        """
        _check_name(name)
        check_given(table, pd.DataFrame, name=f"table {name}", remedy="a pandas DataFrame")
        bounds = {ANY_COLUMN: float(tolerance)} if isinstance(tolerance, int | float) else dict(tolerance)
        for column, bound in bounds.items():
            if column != ANY_COLUMN and column not in table.columns:
                raise ValueError(
                    f"table {name}: tolerance names column {column!r}; columns are {', '.join(map(str, table.columns))}"
                )
            if not (math.isfinite(bound) and bound >= 0):
                raise ValueError(
                    f"table {name}: tolerance {bound} of {column}; it must be a finite number ≥ 0"
                )
        if any(bounds.values()) and not reason:
            raise ValueError(
                f"table {name}: a tolerance needs a reason that a reviewer can judge; pass reason=…"
            )
        if list(table.index) != list(range(len(table))):
            raise ValueError(
                f"table {name}: its index carries information that the CSV would lose; "
                "call reset_index() (drop=True if it has no meaning)"
            )
        if empty and table.empty:
            self._left_out[name] = empty
            print(f"no table {name}: {empty}")
            return table
        text = table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
        entry = {
            "rows": len(table),
            "columns": [str(column) for column in table.columns],
            "numbers": count_numbers(text),
            "tolerance": bounds,
            "reason": reason,
            "volatile": volatile,
            "sha256": hash_text(text),
        }
        write_text(self.build / "tables" / f"{name}.csv", text)
        self._record("table", name, entry)
        return table

    def figure(self, figure: Figure, name: str, *, tables: Sequence[str]) -> Figure:
        """Write `figure` as PNG and SVG, close it for pyplot, and return it for display.

        Args:
            figure: a finished matplotlib figure.
            name: file name without ending.
            tables: the tables that hold its numbers, already written. A figure counts as different when one
                of them does; its pixels are not compared, since they depend on the drawing library's build.

        Raises:
            TypeError: no figure.
            ValueError: a name that is none, or no table of its numbers.
        """
        _check_name(name)
        check_given(figure, Figure, name=f"figure {name}", remedy="a matplotlib Figure, as in axes.figure")
        missing = [table for table in tables if not (self.build / "tables" / f"{table}.csv").is_file()]
        if missing or not tables:
            raise ValueError(
                f"figure {name}: tables={list(tables)}; "
                f"{'not written yet: ' + ', '.join(missing) if missing else 'at least one is needed'}. "
                "Write the numbers that it shows with .table(…) first"
            )
        # Laid out once: each of the renderings that follow, the notebook's own too, would do it anew.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        # The salt makes SVG element ids repeatable; without Date and Software the files carry no run of their own.
        with rc_context({"svg.hashsalt": name}):
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=ending, dpi=DPI, bbox_inches="tight", metadata=metadata)
                write_bytes(self.build / "figures" / f"{name}.{ending}", buffer.getvalue())
        plt.close(figure)  # else the notebook shows it twice: by pyplot and as the cell's value
        self._record("figure", name, {"tables": list(tables)})
        return figure

    def read(self, name: str) -> pd.DataFrame:
        """A table that this or an earlier notebook wrote in the same build."""
        path = self.build / "tables" / f"{name}.csv"
        if not path.is_file():
            raise FileNotFoundError(
                f"table {name} is not in {self.build.name}'s build yet; run the notebook that makes it, "
                f"or `make reproduce PROFILE={self.profile}`. There are: {', '.join(build_entries(self.build, 'table'))}"
            )
        return pd.read_csv(path)

    def timings(self) -> pd.DataFrame:
        """Seconds and peak memory of each notebook that the driver has run; empty when it has run none."""
        path = self.build / TIMINGS
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return pd.DataFrame(
            [{"notebook": name, **rows[name]} for name in sorted(rows)],
            columns=["notebook", "seconds", "peak_memory_mb", "cells"],
        )

    def verify(self, *names: str) -> None:
        """Print, for each table, how many of the committed numbers this run reproduced, and those it did not.

        The text holds nothing that changes from run to run, so nbval can compare it.

        Raises:
            ValueError: no name at all, or a table that was not written.
        """
        if not names:
            raise ValueError(
                "no table is named, so nothing would be compared; name each, as in verify('table1')"
            )
        committed = Committed(self.committed, build=self.build, profile=self.profile)
        entries = build_entries(self.build, "table")
        for name in names:
            if name in self._left_out and name not in entries:
                print(f"{name}: not written, {self._left_out[name]}")
                continue
            if name not in entries:
                raise ValueError(f"table {name} was not written; there are: {', '.join(entries) or 'none'}")
            verdict = verify_table(
                name,
                committed=committed,
                regenerated=(self.build / "tables" / f"{name}.csv").read_text(encoding="utf-8"),
                volatile=bool(entries[name]["volatile"]),
            )
            print(verdict, *(f"    {mismatch}" for mismatch in verdict.mismatches), sep="\n")

    def _record(self, kind: str, name: str, entry: dict[str, Any]) -> None:
        """One manifest file an artefact, so that two notebooks never rewrite a common one."""
        self._provenance = self._provenance or provenance()
        path = self.build / "manifest" / f"{kind}-{name}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        notebook = os.environ.get(NOTEBOOK_VARIABLE, "")
        maker = before.get("notebook", "")
        if notebook and maker and notebook != maker:
            raise ValueError(
                f"{kind} {name} is already made by notebook {maker}; {notebook} must give its own another name"
            )
        whole = {
            "name": name,
            "notebook": notebook or maker,  # run by hand, it is still the notebook that made it before
            **entry,
            "facts": self.facts,
            "provenance": asdict(self._provenance),
        }
        write_text(path, json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n")


def publish(
    build: Path, figures: Path, *, profile: str, notebooks: Mapping[str, str] | None = None
) -> list[str]:
    """Make `figures` hold exactly this build's artefacts and their manifest; return the names of what was put there.

    Provenances are written once and referred to by id, since most artefacts of a run share one. `notebooks`
    gives the hash of each notebook's source, which the git commit of an uncommitted notebook cannot.
    """
    provenances: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    published = []
    for kind, endings in (("table", ("csv",)), ("figure", ("png", "svg"))):
        section = sections.setdefault(f"{kind}s", {})
        for name, entry in build_entries(build, kind).items():
            circumstances = Provenance(**entry["provenance"])
            provenances[circumstances.id] = entry["provenance"]
            rest = {key: value for key, value in entry.items() if key not in {"name", "provenance"}}
            section[name] = {**rest, "provenance": circumstances.id}
            for ending in endings:
                content = (build / f"{kind}s" / f"{name}.{ending}").read_bytes()
                write_bytes(figures / f"{name}.{ending}", content)
                published.append(f"{name}.{ending}")
    manifest = {"profile": profile, "notebooks": dict(notebooks or {}), "provenance": provenances, **sections}
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for stale in _published_files(figures) - set(published):
        (figures / stale).unlink(missing_ok=True)
    write_text(figures / MANIFEST, text)
    return published


def _published_files(figures: Path) -> set[str]:
    """Files that look like published artefacts; anything else in the folder is left alone."""
    return {path.name for path in figures.glob("*") if path.suffix in {".csv", ".png", ".svg"}}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"artefact name {name!r}: use lower-case letters, digits and underscores, as in table1"
        )
