"""Chapter 10: can the reported rates come from the stated numbers of answers, and which differences exceed noise?

    granularity   of each set's rates, how many n answers can give (audit/granularity.py)
    size_search   the same for every n, for one set: a rate's digits tell how many answers there were
    noise         the paper's own method against each other one, with bounds for the paired test

`SIZES` says of each set how many answers a rate is over and how that is known. Scores that are graded (MM-Vet) are no
shares of answers and are in none of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autosteer_lib.audit.granularity import by_chance, digits_of, possible, sizes
from autosteer_lib.audit.paired_bounds import paired_bounds
from autosteer_lib.audit.printed import printed
from autosteer_lib.metrics import Rate

# How many items of Video-SafetyBench's benign half are in each category: every printed rate is a multiple of 1/n.
VIDEO_ITEMS = {
    "1-VC": 96, "2-NC": 96, "3-SC": 60, "4-CSE": 60, "5-Def": 96, "6-SA": 96, "7-Pvy": 96, "8-IP": 96, "9-IW": 100,
    "10-H": 100, "11-Sh": 96, "12-SC": 60, "13-EL": 80,
}  # fmt: skip
SUBSET_OF_MM_SAFETY_BENCH = 1159  # found by `size_search`, not stated: 31 of 36 cells of Table 3 fit it
_OWN = {"AutoSteer": "AutoSteer", "SafeSteer": "SafeSteer", "MARS": "MARS"}
_UNDEFENDED = {"Zero-shot": "Orig.", "Vanilla": "Orig."}
_VIDEO = "Video-SafetyBench"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many answers a set's rates are over."""

    n: int
    known: str
    """"stated", "the set's size", or how else."""


SIZES: dict[tuple[str, str], Size] = {
    **{
        ("AutoSteer", name): Size(n=500, known="stated")
        for name in (
            "VLSafe (text)", "ToViLaG+ (text)", "ToViLaG+ (image)", "ToViLaG+ (text and image)", "RealWorldQA", "MMMU",
        )
    },
    ("SafeSteer", "FigStep"): Size(n=500, known="the set's size"),
    ("SafeSteer", "VLGuard (S-U)"): Size(n=558, known="the set's size"),
    ("SafeSteer", "VLGuard (U)"): Size(n=442, known="the set's size"),
    ("SafeSteer", "VLGuard (SS)"): Size(n=558, known="the set's size"),
    **{
        ("SafeSteer", f"MM-SafetyBench ({name})"): Size(n=1583, known="12 of 13 scenarios of the set")
        for name in ("CB", "SD", "TYPO")
    },
    ("MARS", "MMMU"): Size(n=900, known="the set's validation part"),
    ("MARS", "MMMU-Pro"): Size(n=1730, known="the set's size"),
    ("MARS", "ViSU (safe)"): Size(n=5000, known="stated, as 5K pairs"),
    ("MARS", "ViSU (unsafe)"): Size(n=5000, known="stated, as 5K pairs"),
    ("MARS", "HADES"): Size(n=4500, known="stated, as 4.5K"),
    ("MARS", "MM-SafetyBench"): Size(n=5040, known="stated"),
    ("MARS", _VIDEO): Size(n=sum(VIDEO_ITEMS.values()), known="the set's harmless half"),
    **{("MARS", f"{_VIDEO} ({name})"): Size(n=n, known="multiples of 1/n") for name, n in VIDEO_ITEMS.items()},
}  # fmt: skip


def rates() -> pd.DataFrame:
    """Every reported rate that is a share of answers, once.

    Returns:
        paper, where, model, method ("Orig." is the undefended model), set, measure, variant (of SafeSteer's
        ablation), printed.
    """
    tables = [_tidy("table1", "AutoSteer", by="toxicity")]
    tables.append(_tidy("results", "SafeSteer", by="subset"))
    tables.append(_tidy("ablation", "SafeSteer", by="subset"))
    tables += [_tidy(name, "MARS", by="side") for name in ("refusal", "hades", "utility", "mmsafety")]
    tables.append(_tidy("video", "MARS", by="category"))
    table = pd.concat(tables, ignore_index=True)
    return table[table["measure"].isin(["ASR", "accuracy", "refusal", "safety (Llama Guard 3.1)"])]


def granularity() -> pd.DataFrame:
    """Each set's rates, and how many of them n answers can give.

    Returns:
        paper, set, n, known, cells, possible, by_chance (the same, expected of numbers drawn blindly), impossible
        (those that cannot be, with model and method).
    """
    rows = []
    table = rates()
    for (paper, name), cells in table.groupby(["paper", "set"], sort=False):
        size = SIZES.get((str(paper), str(name)))
        if size is None:
            continue
        wrong = [row for row in cells.to_dict("records") if not possible(row["printed"], size.n)]
        chance = sum(by_chance(size.n, digits=digits_of(text)) for text in cells["printed"])
        rows.append(
            {
                "paper": paper,
                "set": name,
                "n": size.n,
                "known": size.known,
                "cells": len(cells),
                "possible": len(cells) - len(wrong),
                "by_chance": chance,
                "impossible": "; ".join(f"{w['printed']} ({w['model']}, {_run(w)})" for w in wrong),
            }
        )
    return pd.DataFrame(rows)


def size_search(paper: str, name: str, *, most: int, least: int = 100) -> pd.DataFrame:
    """For one set's cells, every n: how many it can give.

    Args:
        paper: "AutoSteer", "SafeSteer" or "MARS".
        name: the set, or the beginning of the names of its parts.
        most: the largest n that is tried.
        least: the smallest.

    Returns:
        n, possible, by_chance, cells.
    """
    table = rates()
    chosen = table[(table["paper"] == paper) & table["set"].str.startswith(name)]
    if chosen.empty:
        known = ", ".join(dict.fromkeys(table.loc[table["paper"] == paper, "set"]))
        raise ValueError(f"{paper!r} reports no rates of {name!r}; there are: {known}")
    return sizes(chosen["printed"].to_list(), range(least, most + 1))


def fitting_sizes(paper: str, name: str, model: str, *, most: int) -> list[int]:
    """Every n up to `most` that can give all rates that a paper prints of one set and model."""
    table = rates()
    cells = table[(table["paper"] == paper) & (table["set"] == name) & (table["model"] == model)]
    found = sizes(cells["printed"].to_list(), range(1, most + 1))
    return [int(n) for n in found.loc[found["possible"] == found["cells"], "n"]]


def noise() -> pd.DataFrame:
    """The paper's own method against each other one, on the sets whose size is known.

    Returns:
        paper, model, set, measure, n, method, other, percent, low, high (Wilson's 95 % of `percent`), other_percent,
        change (points), p_least, p_most, verdict.
    """
    table = rates()
    table = table[table["variant"].eq("") & ~table["set"].str.startswith(f"{_VIDEO} (")]
    rows = []
    for (paper, model, name, measure), cells in table.groupby(
        ["paper", "model", "set", "measure"], sort=False
    ):
        size, own = SIZES.get((str(paper), str(name))), _OWN[str(paper)]
        if size is None and (paper, name) == ("SafeSteer", "MM-SafetyBench"):
            size = Size(n=3 * SUBSET_OF_MM_SAFETY_BENCH, known="as found above")
        by_method = {row["method"]: float(row["printed"]) for row in cells.to_dict("records")}
        if size is None or own not in by_method:
            continue
        answers = {method: round(percent * size.n / 100) for method, percent in by_method.items()}
        rate = Rate(answers[own], size.n)
        for other in by_method:
            if other == own:
                continue
            found = paired_bounds(answers[other], answers[own], n=size.n)
            rows.append(
                {
                    "paper": paper,
                    "model": model,
                    "set": name,
                    "measure": measure,
                    "n": size.n,
                    "method": own,
                    "other": other,
                    "percent": by_method[own],
                    "low": 100 * rate.low,
                    "high": 100 * rate.high,
                    "other_percent": by_method[other],
                    "change": round(by_method[own] - by_method[other], 6),
                    "p_least": found.p_least,
                    "p_most": found.p_most,
                    "verdict": found.verdict,
                }
            )
    return pd.DataFrame(rows)


def _run(row: Mapping[Any, Any]) -> str:
    return str(row["variant"] or row["method"])


def _tidy(name: str, paper: str, *, by: str) -> pd.DataFrame:
    table = printed(name, paper=paper.lower())
    table = table[table["unit"] == "percent"]
    part = table[by] if by in table else pd.Series(pd.NA, index=table.index)
    if name == "video":  # Table 10 ends in overall rates, which Table 5 prints too
        table, part = table[part.ne("overall").fillna(True)], part[part.ne("overall").fillna(True)]
    if name == "ablation":  # its "all" is a mean of three rates
        table, part = table[part != "all"], part[part != "all"]
    names = table["dataset"] + part.map(" ({})".format, na_action="ignore").fillna("")
    return pd.DataFrame(
        {
            "paper": paper,
            "where": table["source"].str.split(", ", n=1).str[1].astype(str),
            "model": table["model"].astype(str),
            "method": table["method"].replace(_UNDEFENDED).astype(str),
            "set": names.astype(str),
            "measure": table["metric"].astype(str),
            "variant": table["variant"].fillna("").astype(str) if "variant" in table else "",
            "printed": table["printed"].astype(str),
        }
    )
