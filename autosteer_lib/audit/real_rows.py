"""Where the rows of real sets are read from, to be turned into fingerprints. Nothing of them is kept.

    <folder>/advbench/advbench.csv  harmbench/…_val.csv, …_test.csv  jailbreakbench/…  figstep/safebench.csv  pope/…
    <folder>/vlsafe_autosteer/…     AutoSteer's training queries, their harmless twins, its 500 test queries
    <folder>/tovilag_plus/…         AutoSteer's other sets; fingerprinted if they are there

`COMPARED` lists which split's rows are looked for in which, by their words (likeness.py). A set whose files are not in
the folder is left out; the command says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from autosteer_lib.audit.fingerprints import RealRow, fingerprints
from autosteer_lib.audit.likeness import COLUMNS, nearest
from autosteer_lib.benchmarks.entry import Row
from autosteer_lib.benchmarks.rows import checked, file_rows

_COCO = re.compile(r"(\d{12})\.jpg$")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One file of a set, and the columns that are hashed."""

    name: str
    file: str
    text: str
    """Column of the words; "" for a file that is looked at for its pictures alone."""
    beside: Callable[[Row], str] | None = None
    kind: str = ""
    """Column of a label that is kept as it is."""

    def rows(self, folder: Path) -> Iterator[RealRow]:
        """The file's rows, each with all columns that are read."""
        columns = tuple(name for name in (self.text, self.kind) if name)
        found = checked(file_rows(folder / self.file), columns=columns, where=self.file)
        for number, row in enumerate(found):
            yield RealRow(
                split=self.name,
                row=number,
                text=str(row[self.text]) if self.text else "",
                beside=self.beside(row) if self.beside else "",
                kind=str(row[self.kind]) if self.kind else "",
            )


def coco_number(row: Row) -> str:
    """A COCO picture's number, which it keeps from one year's split to the next."""
    name = str(row.get("image_id") or row.get("image") or row.get("image_pth"))
    number = _COCO.search(name)
    return number.group(1) if number else name


def _context(row: Row) -> str:
    return str(row["ContextString"] or "")


_VLSAFE, _HARMBENCH, _TOVILAG = "vlsafe_autosteer", "harmbench/harmbench_behaviors_text", "tovilag_plus"
SETS: dict[str, tuple[Split, ...]] = {
    "advbench": (Split(name="all", file="advbench/advbench.csv", text="goal"),),
    "figstep": (
        Split(name="all", file="figstep/safebench.csv", text="question"),
        Split(name="tiny", file="figstep/SafeBench-Tiny.csv", text="question"),
    ),
    "harmbench": tuple(
        Split(
            name=name,
            file=f"{_HARMBENCH}_{name}.csv",
            text="Behavior",
            beside=_context,
            kind="FunctionalCategory",
        )
        for name in ("val", "test")
    ),
    "jailbreakbench": (
        Split(name="harmful", file="jailbreakbench/jailbreakbench.csv", text="Goal", kind="Source"),
        Split(name="benign", file="jailbreakbench/jbb_benign_goals.csv", text="Goal"),
    ),
    # One of its three files: they ask about the same 500 pictures.
    "pope": (Split(name="pictures", file="pope/coco_pope_random.json", text="", beside=coco_number),),
    "vlsafe": (
        Split(
            name="train",
            file=f"{_VLSAFE}/VLSafe_harmlessnss_alignment.jsonl",
            text="query",
            beside=coco_number,
        ),
        Split(
            name="twins", file=f"{_VLSAFE}/vlsafe_convert_safe.jsonl", text="safe_query", beside=coco_number
        ),
        Split(
            name="test", file=f"{_VLSAFE}/examine_sampled_500_VLSafe.jsonl", text="query", beside=coco_number
        ),
    ),
    "tovilag_plus": tuple(
        Split(name=name, file=f"{_TOVILAG}/{file}.jsonl", text="query", beside=coco_number)
        for name, file in {
            "text": "Mono_NontoxicImg_ToxicText_500Samples_convert4test",
            "image": "Mono_NontoxicText_ToxicImg_500Samples_porn_bloody_convert4test",
            "both": "cotoxic_500Samples_convert4test2",
            "train": "Mono_NontoxicText_ToxicImg_1000Samples_porn_bloody_train",
        }.items()
    ),
    "xstest": (Split(name="all", file="xstest/xstest_prompts.csv", text="prompt", kind="label"),),
}
COMPARED: tuple[tuple[str, str], ...] = (
    ("vlsafe/test", "vlsafe/train"),
    ("vlsafe/test", "vlsafe/twins"),
    ("vlsafe/test", "vlsafe/test"),
    ("advbench/all", "advbench/all"),
    ("harmbench/val", "harmbench/test"),
    ("jailbreakbench/harmful", "advbench/all"),
    ("jailbreakbench/harmful", "harmbench/test"),
    ("jailbreakbench/harmful", "harmbench/val"),
    ("jailbreakbench/benign", "jailbreakbench/harmful"),
    ("figstep/all", "figstep/all"),
    ("xstest/all", "xstest/all"),
)


def present(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the sets whose files are all in the folder, and of those that lack any."""
    here = [name for name, splits in SETS.items() if all((folder / split.file).is_file() for split in splits)]
    if not here:
        raise ValueError(
            f"{folder} holds none of the sets {', '.join(SETS)}; give a folder with, for one, "
            f"{SETS['advbench'][0].file}"
        )
    return here, [name for name in SETS if name not in here]


def made_anew(folder: Path) -> dict[str, pd.DataFrame]:
    """Fingerprints of every set in the folder, and under "nearest" the neighbours of all that can be compared."""
    here, _ = present(folder)
    rows = {f"{name}/{split.name}": list(split.rows(folder)) for name in here for split in SETS[name]}
    tables = {
        name: _distinct(fingerprints([row for split in SETS[name] for row in rows[f"{name}/{split.name}"]]))
        for name in here
    }
    neighbours = [
        nearest(rows[of], rows[against]).assign(of=of, against=against)
        for of, against in COMPARED
        if of in rows and against in rows
    ]
    found = pd.concat(neighbours, ignore_index=True) if neighbours else pd.DataFrame(columns=list(COLUMNS))
    return {**tables, "nearest": found[list(COLUMNS)]}


def _distinct(table: pd.DataFrame) -> pd.DataFrame:
    """Of a file that is looked at for its pictures, one row a picture."""
    pictures_alone = table["exact"] == ""
    return table[~(pictures_alone & table.duplicated(["split", "beside"]))].reset_index(drop=True)
