"""The papers' results in three columns: reported there, measured on the organism, measured on the checkpoint.

    reported      data/reported/, of the model that the profile names or, where a paper has not that one, of its own
    organism      tables of the default profile: of this build if it is that, else the published ones (figures/)
    checkpoint    tables of a checkpoint's profile in build/<profile>; empty until that profile was run

A paper's set stands in one row with what stands for it in the organism's world and with the set itself on a
checkpoint; both say how many answers they are of. Nothing is filled in: an empty cell is a number that nobody measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from autosteer_lib.profiles import DEFAULT_PROFILE
from autosteer_lib.provenance import repository_root
from autosteer_lib.reported import reported
from autosteer_lib.study import mars_paper_numbers, safesteer_paper_numbers
from autosteer_lib.study.study import Study

CHECKPOINT = "paper"  # the profile of the papers' checkpoint
METHODS = {
    "AutoSteer": ("Orig.", "Steer", "AutoSteer"),
    "MARS": ("Orig.", "MARS"),
    "SafeSteer": ("Orig.", "SafeSteer"),
}
# The model of each paper that stands here: AutoSteer's is the paper profile's; the others have not that one.
MODELS = {"AutoSteer": "LLaVA-OV-7B", "MARS": "Qwen3-VL-8B", "SafeSteer": "Qwen3-VL-8B"}
TABLES = {"AutoSteer": "table1", "MARS": "mars_refusals", "SafeSteer": "safesteer_table1"}
COLUMNS = (
    "paper", "set", "measure", "method", "reported", "reported_model", "organism", "organism_n", "organism_set",
    "checkpoint", "checkpoint_n",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A set of AutoSteer's Table 1: the organism's surfaces for it, and its own."""

    group: str
    measure: str
    world: tuple[str, ...]
    own: tuple[str, ...]


# AutoSteer's sets; those of the other two have their rows in the tables of chapters 05 and 06.
AUTOSTEER: dict[tuple[str, str], _Row] = {
    ("VLSafe", "text"): _Row(group="attack", measure="attack success", world=("words",), own=("vlsafe",)),
    ("ToViLaG+", "text"): _Row(
        group="attack", measure="attack success", world=("words",), own=("tovilag_plus/text",)
    ),
    ("ToViLaG+", "image"): _Row(
        group="attack", measure="attack success", world=("image",), own=("tovilag_plus/image",)
    ),
    ("ToViLaG+", "text and image"): _Row(
        group="attack", measure="attack success", world=("both",), own=("tovilag_plus/both",)
    ),
    ("RealWorldQA", ""): _Row(group="utility", measure="accuracy", world=(), own=("realworldqa",)),
    ("MMMU", ""): _Row(group="utility", measure="accuracy", world=(), own=("mmmu",)),
}
_MARS_MEASURES = {"ViSU, unsafe": "harmful refused", "ViSU, safe": "harmless refused"}


def three_columns(study: Study, *, checkpoint: str = CHECKPOINT) -> pd.DataFrame:
    """Each reported rate of the papers' own methods beside what was measured here.

    Args:
        study: whose build is read, as the organism's or as the checkpoint's.
        checkpoint: the profile of the third column, where the study is the organism's.

    Returns:
        `COLUMNS`; rates are in [0, 1], NaN where nothing was measured.
    """
    root, own = repository_root(), study.artefacts.build / "tables"
    if study.profile.data.source == "organism":
        organism, other = own, root / "build" / checkpoint / "tables"
    else:
        organism, other = root / "figures", own
        if not (organism / "table1.csv").is_file():
            organism = root / "build" / DEFAULT_PROFILE / "tables"
    return compared(organism=organism, checkpoint=other)


def compared(*, organism: Path, checkpoint: Path) -> pd.DataFrame:
    """The same of two folders of tables, either of which may hold none."""
    keys = ["paper", "set", "measure", "method"]
    table = _reported()
    for name, folder in (("organism", organism), ("checkpoint", checkpoint)):
        found = _measured(folder, world=name == "organism")
        renamed = {"rate": name, "n": f"{name}_n", "sets": f"{name}_set"}
        table = table.merge(found.rename(columns=renamed), on=keys, how="left")
    return table[list(COLUMNS)]


def _reported() -> pd.DataFrame:
    rows = reported("table1")
    rows = rows[(rows["model"] == MODELS["AutoSteer"]) & rows["metric"].isin(["ASR", "accuracy"])]
    autosteer = pd.DataFrame(
        {
            "set": [_named(d, t) for d, t in zip(rows["dataset"], rows["toxicity"].fillna(""), strict=True)],
            "measure": rows["metric"].map({"ASR": "attack success", "accuracy": "accuracy"}),
            "method": rows["method"].astype(str),
            "percent": rows["value"].astype(float),
        }
    ).assign(paper="AutoSteer")
    parts = [mars_paper_numbers.tidy(name, model=MODELS["MARS"]) for name in ("refusal", "hades", "mmsafety")]
    video = mars_paper_numbers.tidy("video", model=MODELS["MARS"])
    mars = pd.concat([*parts, video[video["category"].isna()]], ignore_index=True)
    mars = mars[mars["measure"].isin(["refusal", "safety (Llama Guard 3.1)"])]
    safe = mars["measure"] != "refusal"
    mars = mars.assign(
        paper="MARS",
        measure=mars["set"].map(_MARS_MEASURES).fillna("harmful refused").where(~safe, "safe"),
        set=mars["set"].str.split(",").str[0],
    )
    safesteer = safesteer_paper_numbers.tidy("results", model=MODELS["SafeSteer"]).assign(paper="SafeSteer")
    every = pd.concat([autosteer, mars, safesteer], ignore_index=True)
    known = [method in METHODS[paper] for method, paper in zip(every["method"], every["paper"], strict=True)]
    every = every[known]
    return pd.DataFrame(
        {
            **{key: every[key].astype(str) for key in ("paper", "set", "measure", "method")},
            "reported": every["percent"] / 100,
            "reported_model": every["paper"].map(MODELS),
        }
    ).drop_duplicates(["paper", "set", "measure", "method"], ignore_index=True)


def _measured(folder: Path, *, world: bool) -> pd.DataFrame:
    """What the tables of a build hold of the papers' rows: rate, n and which sets of prompts they are of."""
    rows: list[dict[str, object]] = []
    tables = {paper: _read(folder / f"{name}.csv") for paper, name in TABLES.items()}
    for (dataset, part), row in AUTOSTEER.items():
        rows += _pooled(tables["AutoSteer"], _named(dataset, part), row, world=world)
    for paper in ("MARS", "SafeSteer"):
        for row_ in tables[paper].to_dict("records"):
            rows.append(
                {"paper": paper, "set": row_["set"], "measure": row_["measure"], "method": row_["defence"],
                 "rate": row_["rate"], "n": row_["n"], "sets": row_["surfaces"]}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["paper", "set", "measure", "method", "rate", "n", "sets"])


def _pooled(table: pd.DataFrame, name: str, row: _Row, *, world: bool) -> list[dict[str, object]]:
    """One rate over all prompts of the row's surfaces; of the organism's utility, over all its kinds."""
    if table.empty:
        return []
    asked = table[(table["group"] == row.group) & (table["measure"] == row.measure)]
    surfaces = row.world if world else row.own
    if surfaces:
        asked = asked[asked["surface"].isin(surfaces)]
    rows: list[dict[str, object]] = []
    for method, part in asked.groupby("defence", sort=False):
        count = int(part["n"].sum())
        if count:
            rate = float((part["rate"] * part["n"]).sum() / count)
            rows.append(
                {"paper": "AutoSteer", "set": name, "measure": row.measure, "method": method, "rate": rate, "n": count,
                 "sets": ", ".join(dict.fromkeys(part["surface"])) if surfaces else "all kinds"}
            )  # fmt: skip
    return rows


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _named(dataset: object, part: object) -> str:
    return f"{dataset} ({part})" if part else str(dataset)


def status(table: pd.DataFrame) -> Mapping[str, str]:
    """One sentence a column: how many of the reported rates have a number in it."""
    total = len(table)
    found = {name: int(table[name].notna().sum()) for name in ("organism", "checkpoint")}
    return {
        "reported": f"{total} rates of the papers' own methods",
        "organism": f"{found['organism']} of {total} measured on what stands for the set",
        "checkpoint": f"{found['checkpoint']} of {total} measured"
        + ("" if found["checkpoint"] else f": not run yet (make reproduce PROFILE={CHECKPOINT})"),
    }
