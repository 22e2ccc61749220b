"""MARS's reported numbers, shaped as the figures take them, and where the paper contradicts itself.

`tidy` gives any of its tables in one shape; the functions after it give what one figure draws. Rates for figures are
in [0, 1], their measures named as this project's own: ViSU's unsafe and safe pictures are the "harmful" and
"harmless" requests, MMMU-Pro is the utility. "Zero-shot" is the undefended model, "Orig." in all figures.
Never mixed with measured numbers: other models, other sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from autosteer_lib.reported import reported

UNDEFENDED = "Orig."
MODELS = ("Gemma3-4B", "Molmo2-8B", "InternVL3.5-8B", "Qwen3-VL-8B", "Qwen3.5-9B")
TIDY = ("table", "model", "method", "set", "measure", "percent", "note")
_SETTINGS = ("variant", "alpha", "neutral_images", "prompt", "category")
_MEASURES = {"ViSU, unsafe": "harmful refused", "ViSU, safe": "harmless refused", "MMMU-Pro": "utility"}


def tidy(name: str, *, model: str | None = None) -> pd.DataFrame:
    """A table of the paper, one row a percentage.

    Args:
        name: "refusal" (Table 1), "hades" (2), "utility" (3), "ablation" (4 and 8), "video" (5 and 10), "mmsafety"
            (6), "prompt_effect" (7), "neutral_images" (9), "llava15" (Fig. 4), "fixed_strength" (Fig. 1).
        model: one of the models; None gives all.

    Returns:
        table ("Table 1"), model, method, set ("ViSU, unsafe", …), measure ("refusal", …), percent, note, and those of
        variant, alpha, neutral_images, prompt, category that tell the table's rows apart.
    """
    table = reported(name, paper="mars")
    table = table[table["unit"] == "percent"]
    if model is not None:
        known = list(dict.fromkeys(table["model"]))
        if model not in known:
            raise ValueError(f"MARS reports no model {model!r} in {name!r}; there are: {', '.join(known)}")
        table = table[table["model"] == model]
    side = table["side"].map(", {}".format, na_action="ignore").fillna("") if "side" in table else ""
    shaped = pd.DataFrame(
        {
            "table": table["source"].str.split(", ", n=1).str[1].astype(str),
            "model": table["model"].astype(str),
            "method": table["method"].replace({"Zero-shot": UNDEFENDED}).astype(str),
            "set": (table["dataset"] + side).astype(str),
            "measure": table["metric"].astype(str),
            "percent": table["value"].astype(float),
            "note": table["note"].astype(str),
        }
    )
    settings = [column for column in _SETTINGS if column in table]
    return shaped.join(table[settings]).reset_index(drop=True)


def rates(name: str, *, model: str, measure: str = "refusal", methods: Sequence[str] = ()) -> pd.DataFrame:
    """A table as `plotting.rates_by_surface` takes it; a set stands in a surface's place.

    Returns:
        surface, defence, rate.
    """
    table = tidy(name, model=model)
    table = table[table["measure"] == measure]
    if "category" in table:  # Table 5's totals; see `video_by_category`
        table = table[table["category"].isna()]
    names = table["set"] + (", " + table["prompt"] + " prompt" if name == "prompt_effect" else "")
    return _as_rates(table, names, methods=methods)


def video_by_category(*, model: str, methods: Sequence[str] = ()) -> pd.DataFrame:
    """Table 10 as `plotting.rates_by_surface` takes it: its 13 categories, without the overall rate.

    Returns:
        surface (the category as the paper abbreviates it), defence, rate.
    """
    table = tidy("video", model=model)
    table = table[table["category"].notna() & (table["category"] != "overall")]
    return _as_rates(table, table["category"], methods=methods)


def ablation(*, model: str) -> pd.DataFrame:
    """Table 8, and Table 9's values where the row is shifted.

    Returns:
        variant, measure, rate.
    """
    table = tidy("ablation", model=model)
    shifted = table["note"].str.contains("shifted")
    table9 = tidy("neutral_images", model=model)
    right = table9[table9["neutral_images"].isna()].set_index("set")["percent"]
    table["percent"] = table["percent"].mask(shifted, table["set"].map(right))
    table["variant"] = table["variant"].fillna("undefended")
    return _as_measures(table, "variant")


def neutral_images(*, model: str) -> pd.DataFrame:
    """Table 9; the undefended model's rows have no number of pictures.

    Returns:
        neutral_images, measure, rate.
    """
    return _as_measures(tidy("neutral_images", model=model), "neutral_images")


def by_strength(*, model: str) -> pd.DataFrame:
    """Fig. 1b, read off the figure, so good to a point or two; it has no legible utility.

    Returns:
        alpha, measure, rate.
    """
    table = tidy("fixed_strength", model=model)
    found = table[table["measure"] == "refusal"]
    if found.empty:
        raise ValueError(f"Fig. 1b could not be read for {model!r}; take 'Qwen3-VL-8B' or 'Gemma3-4B'")
    return _as_measures(found, "alpha")


def layers() -> pd.DataFrame:
    """Which layer MARS steers in each model (App. C), and over which its scores are drawn (Fig. 5).

    Returns:
        model, selected, first, last.
    """
    table = reported("layers", paper="mars")
    names = {"selected layer": "selected", "first candidate layer": "first", "last candidate layer": "last"}
    wide = table.pivot(index="model", columns="metric", values="value").rename(columns=names)
    return wide.loc[list(MODELS), list(names.values())].astype(int).reset_index().rename_axis(columns=None)


def safety_against_cost(*, model: str) -> pd.DataFrame:
    """The paper's methods in one plane: safe ViSU pictures refused, and HADES answers that Llama Guard calls unsafe.

    Returns:
        method, x, y.
    """
    visu, hades = tidy("refusal", model=model), tidy("hades", model=model)
    refused = visu[visu["set"] == "ViSU, safe"].set_index("method")["percent"]
    safe = hades[hades["measure"].str.startswith("safety")].set_index("method")["percent"]
    plane = pd.DataFrame({"x": refused / 100, "y": (1 - safe / 100).round(6)})
    return plane.rename_axis("method").reset_index()


def contradictions() -> pd.DataFrame:
    """Where the paper's numbers disagree, and what weakens them otherwise.

    Returns:
        kind ("contradiction", "weak point"), number, where, printed, disagrees.
    """
    rows = [("contradiction", *row) for row in _CONTRADICTIONS] + [("weak point", *row) for row in _WEAK]
    return pd.DataFrame(rows, columns=["kind", "number", "where", "printed", "disagrees"])


def _as_rates(table: pd.DataFrame, names: pd.Series, *, methods: Sequence[str]) -> pd.DataFrame:
    shaped = pd.DataFrame(
        {"surface": names.astype(str), "defence": table["method"], "rate": table["percent"] / 100}
    )
    return (shaped[shaped["defence"].isin(methods)] if methods else shaped).reset_index(drop=True)


def _as_measures(table: pd.DataFrame, key: str) -> pd.DataFrame:
    return pd.DataFrame(
        {key: table[key], "measure": table["set"].map(_MEASURES), "rate": table["percent"] / 100}
    ).reset_index(drop=True)


_CONTRADICTIONS = (
    (
        "MARS on Molmo2, video refused", "Table 5 and text; Table 10", "69.2, and a gain of 40.4 points from it",
        "Table 10 ends in 67.8, the plain mean of its categories; over their items they give 68.9",
    ),
    (
        "MARS on Molmo2, HADES refused", "Table 2; Table 7 and text", "95.8 in Table 2",
        "92.0 in Table 7, and the text's gain of 74.8 points is counted from that",
    ),
    (
        "zero-shot extremes on HADES", "text; Table 2", "16.7 and 65.3 refused, 37.4 safe, each with a model's name",
        "in the table these are InternVL3.5, Qwen3.5 and Gemma3; the text names others",
    ),
    (
        "zero-shot row of the ablation", "Table 8; Table 9", "Qwen3-VL 0.5, 0.0, 14.2 and Qwen3.5 39.3, 22.9, 35.6",
        "cells slid one place to the right: Table 9 has 0.0, 14.2, 39.3 and 0.1, 22.9, 35.6",
    ),
    (
        "zero-shot refusal of safe pictures", "Table 1; Tables 8 and 9", "0.1 for Gemma3 and for Qwen3-VL in Table 1",
        "0.0 for Gemma3 in both other tables, 0.0 for Qwen3-VL in Table 9",
    ),
    (
        "layer where Qwen3-VL refuses most, α = 1", "§3; Fig. 1a", "layer 16 in the text",
        "the figure's star stands at layer 19",
    ),
    (
        "MARS on Qwen3.5, utility", "Table 3; §5.2", "MMMU 50.8 to 38.2, MMMU-Pro 35.6 to 24.5",
        "the loss of 12.6 and 11.1 points is called modest, and utility said to be kept in general",
    ),
    (
        "AdaSteer's overall video refusal", "Tables 5 and 10", "39.6, 6.6, 49.7 and 67.8",
        "over the items; the other methods' are plain means of 13 categories: here 38.8, 6.7, 50.3 and 67.4",
    ),
    (
        "gain on video, Qwen3.5", "Table 5", "26.2 to 78.2, called ×2.9",
        "the ratio is 2.98; the other multiples in that row are rounded, this one is cut off",
    ),
    (
        "separability score", "eq. 8", "a sign of −1 for the unsafe class",
        "on distances that are already relative to the class it counts errors; balanced accuracy is surely meant",
    ),
)  # fmt: skip
_WEAK = (
    (
        "steering all layers", "Table 8", "for Qwen3-VL 54.0 safe and 0.0 unsafe refused, 17.9 on MMMU-Pro",
        "every layer takes the whole adaptive step at every token, so it says little of methods that act everywhere gently",
    ),
    (
        "without the ReLU", "Table 8", "refusal moves from 43.3 to 43.7, or from 68.1 to 67.7, at most",
        "the gate hardly bears on refusal; what it saves is utility",
    ),
    (
        "MARS on InternVL3.5, video refused", "Table 5", "4.7 to 11.9",
        "×2.5 sounds like more than the 7.2 points it is; nine in ten attacks still get an answer",
    ),
    (
        "safe pictures refused", "Table 1", "10.3 on InternVL3.5, 7.3 on Molmo2",
        "one safe caption in ten or fourteen is lost, on the only safe set",
    ),
    (
        "MARS on InternVL3.5, HADES", "Table 2", "88.3 refused, 79.8 safe",
        "some answers hold a refusal phrase and are unsafe all the same: phrases count what a judge does not",
    ),
    (
        "over-refusal", "Tables 1 and 3", "safe ViSU captions, MMMU, MMMU-Pro",
        "no borderline prompts and no harmless twins in the words of the jailbreaks",
    ),
    ("Gemma3 on video", "Tables 5 and 10", "four models", "five models elsewhere; no reason was found"),
    (
        "training-free choice of layer", "§4.3; Fig. 5", "text prompts alone",
        "it reads a validation set of HarmBench, and every plotted score begins at layer 20, which no text states",
    ),
    (
        "the authors' own limits", "text", "some over-refusal remains",
        "it needs a model whose text side refuses, and a shift between modalities that one vector can undo",
    ),
)  # fmt: skip
