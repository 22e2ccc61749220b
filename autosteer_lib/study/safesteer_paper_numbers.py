"""SafeSteer's reported numbers, shaped as the figures take them, and where the paper contradicts itself.

`tidy` gives any of its tables in one shape; the functions after it give what one figure draws. Rates for figures are
in [0, 1]. "Vanilla" is the undefended model, "Orig." in all figures. Never mixed with measured numbers: other models,
other sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from autosteer_lib.reported import reported

UNDEFENDED = "Orig."
MODELS = ("LLaVA-1.5-7B", "Qwen2.5-VL-7B", "Qwen3-VL-8B")
TIDY = ("table", "model", "method", "set", "measure", "percent", "note")
_OVER_REFUSAL = "VLGuard, SS"


def tidy(name: str, *, model: str | None = None) -> pd.DataFrame:
    """A table of the paper, one row a percentage.

    Args:
        name: "results" (Table 1), "ablation" (Table 3), "claims" (the text).
        model: one of `MODELS`; None gives all.

    Returns:
        table ("Table 1"), model, method, set ("VLGuard, S-U", …), measure ("ASR", …), percent, note, and for the
        ablation variant.
    """
    table = _of_model(name, model)
    table = table[table["unit"] == "percent"]
    subset = table["subset"].map(", {}".format, na_action="ignore").fillna("") if "subset" in table else ""
    shaped = pd.DataFrame(
        {
            "table": table["source"].str.split(", ", n=1).str[1].astype(str),
            "model": table["model"].astype(str),
            "method": table["method"].replace({"Vanilla": UNDEFENDED}).astype(str),
            "set": (table["dataset"] + subset).astype(str),
            "measure": table["metric"].astype(str),
            "percent": table["value"].astype(float),
            "note": table["note"].astype(str),
        }
    )
    return shaped.join(table[[c for c in ("variant",) if c in table]]).reset_index(drop=True)


def rates(*, model: str, measure: str = "ASR", methods: Sequence[str] = ()) -> pd.DataFrame:
    """Table 1 as `plotting.rates_by_surface` takes it; a set stands in a surface's place.

    Args:
        model: one of `MODELS`.
        measure: "ASR", "refusal" (of safe pictures with safe words) or "accuracy" (MM-Vet).
        methods: some of them; all if empty.

    Returns:
        surface, defence, rate.
    """
    table = tidy("results", model=model)
    table = table[table["measure"] == measure]
    if methods:
        table = table[table["method"].isin(methods)]
    return pd.DataFrame(
        {"surface": table["set"], "defence": table["method"], "rate": table["percent"] / 100}
    ).reset_index(drop=True)


def ablation(*, model: str) -> pd.DataFrame:
    """Table 3, as printed.

    Returns:
        variant ("full", "no probe", "no MSAV", "neither"), surface ("CB", "SD", "TYPO", "all"), rate, note.
    """
    table = tidy("ablation", model=model)
    return pd.DataFrame(
        {
            "variant": table["variant"].astype(str),
            "surface": table["set"].str.removeprefix("MM-SafetyBench, ").astype(str),
            "rate": table["percent"] / 100,
            "note": table["note"],
        }
    )


def cost() -> pd.DataFrame:
    """Table 2, on Qwen2.5-VL.

    Returns:
        method, training_hours (NaN where nothing is trained), tokens_per_second, times_plain (their ratio to the
        undefended model's).
    """
    table = reported("cost", paper="safesteer").replace({"method": {"Vanilla": UNDEFENDED}})
    wide = table.pivot(index="method", columns="metric", values="value").loc[table["method"].unique()]
    speed = wide["speed"]
    return pd.DataFrame(
        {
            "method": wide.index.astype(str),
            "training_hours": wide["hours"].to_numpy(),
            "tokens_per_second": speed.to_numpy(),
            "times_plain": (speed / speed[UNDEFENDED]).to_numpy(),
        }
    )


def safety_against_cost(*, model: str) -> pd.DataFrame:
    """The methods in one plane: safe VLGuard prompts refused, and MM-SafetyBench attacks that succeed.

    Returns:
        method, x, y.
    """
    table = tidy("results", model=model)
    x, y = (
        table[table["set"] == name].set_index("method")["percent"] / 100
        for name in (_OVER_REFUSAL, "MM-SafetyBench")
    )
    return pd.DataFrame({"x": x, "y": y}).rename_axis("method").reset_index()


def contradictions() -> pd.DataFrame:
    """Where the paper's numbers disagree, and what weakens them otherwise.

    Returns:
        kind ("contradiction", "weak point"), number, where, printed, disagrees.
    """
    rows = [("contradiction", *row) for row in _CONTRADICTIONS] + [("weak point", *row) for row in _WEAK]
    return pd.DataFrame(rows, columns=["kind", "number", "where", "printed", "disagrees"])


def _of_model(name: str, model: str | None) -> pd.DataFrame:
    table = reported(name, paper="safesteer")
    if model is None:
        return table
    known = list(dict.fromkeys(table["model"]))
    if model not in known:
        raise ValueError(f"SafeSteer reports no model {model!r} in {name!r}; there are: {', '.join(known)}")
    return table[table["model"] == model]


_CONTRADICTIONS = (
    (
        "the headline fall", "abstract; §5.2; Table 1", "33.40",
        "the abstract calls it the most, §5.2 an average over baselines; it is one cell, 35.20 to 1.80",
    ),
    (
        "Qwen2.5-VL without the probe, TYPO", "Table 3", "11.39, with a mean of 2.65",
        "the three subsets average 5.69; the mean implies 2.26, and 11.39 is the cell without both parts",
    ),
    (
        "Qwen2.5-VL without MSAV, TYPO", "Table 3", "11.39, with a mean of 2.50",
        "the three subsets average 5.24; the mean implies 3.18, and 11.39 is the cell without both parts",
    ),
    (
        "LLaVA without both parts", "Table 3", "37.62", "the three subsets average 36.61; Table 1 has 37.62",
    ),
    ("LLaVA without MSAV", "Table 3", "35.55", "the three subsets average 35.51"),
    ("Qwen3-VL without the probe", "Table 3", "2.50", "the three subsets average 2.40"),
    ("Qwen3-VL without MSAV", "Table 3", "2.62", "the three subsets average 2.45"),
    (
        "superior to the baselines", "text; Table 1", "30.37 on MM-SafetyBench with LLaVA",
        "ECSO has 26.59 there",
    ),
    (
        "both parts essential", "text; Table 3", "1.75 rises to 2.65 or 2.50 without one part of Qwen2.5-VL",
        "and to 15.13 without both: either part alone does nearly all of it",
    ),
    (
        "the alignment vector", "§4.2, eq. 8", "image attacks are to look like text attacks",
        "adding the image mean less the text mean leads away from the text attacks",
    ),
    (
        "the step of the alignment vector", "eq. 9–10", "a distance times a difference of means",
        "neither has length 1, so the step grows with the square of the states' scale",
    ),
    (
        "what a high score means", "eq. 2; eq. 6; §3.2", "the score is of harm, and high scores are drawn",
        "right only if refusals look more harmful than answers; the group's earlier code has the labels swapped",
    ),
)  # fmt: skip
_WEAK = (
    (
        "MM-Vet", "§3.1; Table 1", "31.00 to 27.60, 57.50 to 52.20, 46.60 to 56.00",
        "200 of its 218 questions train the probe as harmless, and then measure utility",
    ),
    (
        "MM-SafetyBench", "§3.1", "12 of 13 categories",
        "the probe learns on the thirteenth; FigStep and VLGuard are what is transferred to",
    ),
    (
        "safe prompts refused", "Table 1", "15.77, 21.33 and 22.22 undefended; 13.98, 15.41 and 11.29 defended",
        "a defence that only adds refusals cannot lower this; one run each, drawn at temperature 1",
    ),
    (
        "mean over subsets", "Table 3", "CB, SD and TYPO",
        "attacks in picture and writing at once, SD+TYPO, are trained on and not in the headline",
    ),
    ("K and step", "App. A", "5 to 20, 0 to 20", "the values behind the tables are not stated"),
    (
        "the authors' own limits", "text", "no safe token among the candidates",
        "the correction is gradual then, and it needs a model that is well aligned in text",
    ),
)  # fmt: skip
