"""Chapter 10: do the papers' tables add up, and do two tables that print one run print the same?

    sums       every mean, difference and multiple that a paper states, against the cells that it is of
    repeated   every number that is printed in more than one place
    repairs    for a mean that its cells do not give: what each cell would have to be

All from data/reported, by intervals (audit/printed.py): what the rounding of the cells allows is agreement. Text that
no cell can be held against is read, not computed: `contradictions` of the papers' own modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

from autosteer_lib.audit.granularity import counts
from autosteer_lib.audit.printed import Interval, interval, mean, printed
from autosteer_lib.study.audit_sizes import SUBSET_OF_MM_SAFETY_BENCH, VIDEO_ITEMS

_SUBSETS = ("CB", "SD", "TYPO")
# The full method and the undefended model are printed in several tables of MARS: which rows of each are they?
_MARS_RUNS: dict[str, dict[str, dict[str, str | float | None]]] = {
    "refusal": {"Zero-shot": {"method": "Zero-shot"}, "MARS": {"method": "MARS"}},
    "utility": {"Zero-shot": {"method": "Zero-shot"}, "MARS": {"method": "MARS"}},
    "ablation": {"Zero-shot": {"variant": None}, "MARS": {"variant": "full"}, "no centring": {"variant": "no centring"}},
    "neutral_images": {
        "Zero-shot": {"neutral_images": None},
        "MARS": {"neutral_images": 128.0},
        "no centring": {"neutral_images": 0.0},
    },
}  # fmt: skip


def sums() -> pd.DataFrame:
    """Every stated result of a sum.

    Returns:
        paper, where, what, rule ("difference", "mean of subsets", …), stated (as printed), low, high (what its cells
        allow), off (how far the stated interval is from them, 0 where it agrees), agrees.
    """
    rows = [*_autosteer_changes(), *_safesteer_sums(), *_mars_multiples(), *_mars_gains(), *_mars_video()]
    return pd.DataFrame([_compared(**row) for row in rows])


def repeated() -> pd.DataFrame:
    """Every number that is printed in several tables.

    Returns:
        paper, model, method, what, where, printed ("95.8; 92.0"), spread (greatest less least), agrees.
    """
    found = pd.concat([_mars_cells(), _safesteer_cells()], ignore_index=True)
    rows = []
    for (paper, model, method, what), cells in found.groupby(
        ["paper", "model", "method", "what"], sort=False
    ):
        if len(cells) < 2:
            continue
        parts = [interval(text) for text in cells["printed"]]
        agrees = all(a.distance(b) == 0 for a in parts for b in parts)
        values = cells["printed"].astype(float)
        rows.append(
            {
                "paper": paper,
                "model": model,
                "method": method,
                "what": what,
                "where": "; ".join(cells["where"]),
                "printed": "; ".join(cells["printed"]),
                "spread": round(values.max() - values.min(), 6),
                "agrees": agrees,
            }
        )
    return pd.DataFrame(rows)


def repairs() -> pd.DataFrame:
    """SafeSteer's Table 3, where a mean is not that of its cells: one cell changed, the others as printed.

    Returns:
        model, variant, cell, printed, possible (can the subset's questions give it?), low, high (what the mean asks
        it to be), nearest (the percentage in there that the questions can give, or none).
    """
    rows = []
    for model, variant, cells in _ablation_rows():
        parts = {name: interval(text) for name, text in cells.items()}
        if mean([parts[s] for s in _SUBSETS]).distance(parts["all"]) == 0:
            continue
        for name in _SUBSETS:
            others = [parts[s] for s in _SUBSETS if s != name]
            low = 3 * parts["all"].low - sum((o.high for o in others), Fraction(0))
            high = 3 * parts["all"].high - sum((o.low for o in others), Fraction(0))
            fitting = counts(Interval(low, high), SUBSET_OF_MM_SAFETY_BENCH)
            nearest = ", ".join(f"{100 * k / SUBSET_OF_MM_SAFETY_BENCH:.2f}" for k in fitting)
            rows.append(
                {
                    "model": model,
                    "variant": variant,
                    "cell": name,
                    "printed": cells[name],
                    "possible": len(counts(parts[name], SUBSET_OF_MM_SAFETY_BENCH)) > 0,
                    "low": float(low),
                    "high": float(high),
                    "nearest": nearest or "none",
                }
            )
    return pd.DataFrame(rows)


def summary(checked: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """How many of the checks agree, by any of the table's columns."""
    grouped = checked.groupby(list(by), sort=False)["agrees"].agg(["sum", "count"]).reset_index()
    return grouped.rename(columns={"sum": "agree", "count": "checked"})


def _compared(*, stated: str, allowed: Interval, **names: str) -> dict[str, Any]:
    off = interval(stated).distance(allowed)
    return {
        **names,
        "stated": stated,
        "low": float(allowed.low),
        "high": float(allowed.high),
        "off": float(off),
        "agrees": off == 0,
    }


def _autosteer_changes() -> Iterator[dict[str, Any]]:
    table = printed("table1", paper="autosteer")
    table["toxicity"] = table["toxicity"].fillna("")
    rates = table[~table["metric"].str.endswith("change vs Orig.")]
    cells = {
        (row["model"], row["method"], row["dataset"], row["toxicity"]): row["printed"]
        for row in rates.to_dict("records")
    }
    for row in table[table["metric"].str.endswith("change vs Orig.")].to_dict("records"):
        model, method, dataset, toxicity = row["model"], row["method"], row["dataset"], row["toxicity"]
        after, before = cells[model, method, dataset, toxicity], cells[model, "Orig.", dataset, toxicity]
        yield {
            "paper": "AutoSteer",
            "where": "Table 1",
            "what": f"{model}, {method}, {dataset}{f' ({toxicity})' if toxicity else ''}",
            "rule": "difference",
            "stated": row["printed"],
            "allowed": interval(after) - interval(before),
        }


def _ablation_rows() -> Iterator[tuple[str, str, dict[str, str]]]:
    table = printed("ablation", paper="safesteer")
    for (model, variant), rows in table.groupby(["model", "variant"], sort=False):
        yield str(model), str(variant), dict(zip(rows["subset"], rows["printed"], strict=True))


def _safesteer_sums() -> Iterator[dict[str, Any]]:
    for model, variant, cells in _ablation_rows():
        yield {
            "paper": "SafeSteer",
            "where": "Table 3",
            "what": f"{model}, {variant}",
            "rule": "mean of subsets",
            "stated": cells["all"],
            "allowed": mean([interval(cells[name]) for name in _SUBSETS]),
        }
    results = printed("results", paper="safesteer")
    figstep = results[(results["dataset"] == "FigStep") & (results["model"] == "Qwen2.5-VL-7B")]
    cell = dict(zip(figstep["method"], figstep["printed"], strict=True))
    yield {
        "paper": "SafeSteer",
        "where": "abstract, §5.2",
        "what": "the headline fall, as one cell: FigStep on Qwen2.5-VL-7B",
        "rule": "difference",
        "stated": printed("claims", paper="safesteer")["printed"].iloc[0],
        "allowed": interval(cell["Vanilla"]) - interval(cell["SafeSteer"]),
    }


def _mars_multiples() -> Iterator[dict[str, Any]]:
    for name, where in (("video", "Table 5"), ("llava15", "Fig. 4")):
        table = printed(name, paper="mars")
        if "category" in table:
            table = table[table["category"].isna()]
        side = table["side"].fillna("") if "side" in table else pd.Series("", index=table.index)
        table = table.assign(side=side)
        cells = {
            (row["model"], row["dataset"], row["side"], row["method"]): row["printed"]
            for row in table[table["metric"] == "refusal"].to_dict("records")
        }
        for row in table[table["unit"] == "times"].to_dict("records"):
            key = row["model"], row["dataset"], row["side"]
            yield {
                "paper": "MARS",
                "where": where,
                "what": f"{row['model']}, {row['dataset']}",
                "rule": "multiple",
                "stated": row["printed"],
                "allowed": interval(cells[*key, "MARS"]) / interval(cells[*key, "Zero-shot"]),
            }


def _mars_gains() -> Iterator[dict[str, Any]]:
    """The text's two gains, each against every table that prints the pair."""
    video, hades = printed("video", paper="mars"), printed("prompt_effect", paper="mars")
    neutral = hades[hades["prompt"] == "neutral"]
    pairs = [
        (video, video[video["category"].isna()], "Table 5"),
        (video, video[video["category"] == "overall"], "Table 10"),
        (hades, neutral, "Table 7"),
        (hades, printed("hades", paper="mars"), "Table 2"),
    ]
    for of, table, where in pairs:
        stated = of[of["metric"] == "refusal, points over zero-shot"].iloc[0]
        rows = table[(table["model"] == stated["model"]) & (table["metric"] == "refusal")]
        cells = dict(zip(rows["method"], rows["printed"], strict=True))
        yield {
            "paper": "MARS",
            "where": f"text against {where}",
            "what": f"{stated['model']}, {stated['dataset']}",
            "rule": "difference",
            "stated": stated["printed"],
            "allowed": interval(cells["MARS"]) - interval(cells["Zero-shot"]),
        }


def _mars_video() -> Iterator[dict[str, Any]]:
    """Table 10's overall rates, as the plain mean of the categories and over their items."""
    table = printed("video", paper="mars")
    table = table[table["category"].notna()]
    for (model, method), rows in table.groupby(["model", "method"], sort=False):
        cells = dict(zip(rows["category"], rows["printed"], strict=True))
        parts, items = [interval(cells[c]) for c in VIDEO_ITEMS], list(VIDEO_ITEMS.values())
        for rule, weights in (("plain mean", []), ("mean over items", items)):
            yield {
                "paper": "MARS",
                "where": "Table 10",
                "what": f"{model}, {method}",
                "rule": rule,
                "stated": cells["overall"],
                "allowed": mean(parts, weights=weights),
            }


def _mars_cells() -> pd.DataFrame:
    tables = []
    for name, runs in _MARS_RUNS.items():
        table = printed(name, paper="mars")
        for run, choice in runs.items():
            rows = table
            for column, value in choice.items():
                rows = rows[rows[column].isna() if value is None else rows[column] == value]
            tables.append(_cells(rows, method=run))
    hades, prompts = printed("hades", paper="mars"), printed("prompt_effect", paper="mars")
    tables.append(_cells(hades[hades["metric"] == "refusal"]))
    tables.append(_cells(prompts[(prompts["prompt"] == "neutral") & (prompts["metric"] == "refusal")]))
    video = printed("video", paper="mars")
    totals = video["category"].isna() | (video["category"] == "overall")
    tables.append(_cells(video[totals & (video["metric"] == "refusal")]))
    return pd.concat(tables, ignore_index=True).assign(paper="MARS")


def _safesteer_cells() -> pd.DataFrame:
    results, ablation = printed("results", paper="safesteer"), printed("ablation", paper="safesteer")
    both = {"full": "SafeSteer", "neither": "Vanilla"}
    ablation = ablation[(ablation["subset"] == "all") & ablation["variant"].isin(both)]
    results = results[(results["dataset"] == "MM-SafetyBench") & results["method"].isin(both.values())]
    ablation = ablation.assign(method=ablation["variant"].map(both))
    return pd.concat([_cells(results), _cells(ablation)], ignore_index=True).assign(paper="SafeSteer")


def _cells(rows: pd.DataFrame, *, method: str = "") -> pd.DataFrame:
    side = rows["side"].map(", {}".format, na_action="ignore").fillna("") if "side" in rows else ""
    return pd.DataFrame(
        {
            "model": rows["model"].astype(str),
            "method": method or rows["method"].astype(str),
            "what": (rows["dataset"] + side + ", " + rows["metric"]).astype(str),
            "where": rows["source"].str.split(", ", n=1).str[1].astype(str),
            "printed": rows["printed"].astype(str),
        }
    )
