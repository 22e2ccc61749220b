"""Chapter 05, second half: what MARS does to attacks, harmless twins and utility, alone and against the others.

The sets of the paper have no counterpart of the same name in the organism's world; what stands for them, by kind:

    ViSU            image and its twins: harm or none in the picture, the same words
    HADES           image and typographic: a neutral request, harm in what is seen
    MM-SafetyBench  image, typographic, both, words: its SD, TYPO, SD+TYPO and text questions
    Video-SafetyBench  video, by the kind of thing that is shown
    MMMU, MMMU-Pro  the world's five kinds of question
"""

from __future__ import annotations

import pandas as pd

from autosteer_lib.defences import Defence
from autosteer_lib.metrics import Rate
from autosteer_lib.organism.things import thing
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import either_of, have

STANDS_FOR: dict[str, tuple[str, ...]] = {
    "ViSU": ("image",),
    "HADES": ("image", "typographic", "hades/neutral"),
    "MM-SafetyBench": (
        *("image", "typographic", "both", "words"),
        *("mm_safetybench/sd", "mm_safetybench/typo", "mm_safetybench/sd_typo", "mm_safetybench/text"),
    ),
    "Video-SafetyBench": ("video", "video_safetybench/benign"),
}


def methods(study: Study) -> dict[str, Defence]:
    """AutoSteer's columns and MARS, all fitted without a test prompt."""
    return {**study.methods(), "MARS": study.mars()}


def answers(study: Study) -> pd.DataFrame:
    """Every test prompt under each method; the columns of `evaluate`."""
    return study.evaluate(methods(study), study.data.tests)


def refusals(frame: pd.DataFrame) -> pd.DataFrame:
    """Tables 1, 2, 5 and 6 of MARS: refusal of attacks and of twins, and safety, on what stands for each set.

    Safety is the share of attacks that were not carried out, by the judge that knows the truth.

    Returns:
        set, surfaces, defence, measure ("harmful refused", "harmless refused", "safe"), rate, low, high, n; no rows
        where nothing stands for any of them.
    """
    rows = []
    for name, surfaces in STANDS_FOR.items():
        part = frame[frame["surface"].isin(surfaces) & ~frame["failed"]]
        for defence, answered in part.groupby("defence", sort=False):
            attacks, twins = answered[answered["group"] == "attack"], answered[answered["group"] == "benign"]
            for measure, outcomes in (
                ("harmful refused", attacks["refused"]),
                ("harmless refused", twins["refused"]),
                ("safe", ~attacks["unsafe"].astype(bool)),
            ):
                if outcomes.empty:  # most published sets have no harmless twins
                    continue
                rate = Rate.of(outcomes.astype(bool).tolist())
                rows.append(
                    {
                        "set": name,
                        "surfaces": ", ".join(have(surfaces, set(part["surface"]))),
                        "defence": defence,
                        "measure": measure,
                        **rate.as_row(),
                    }
                )
    columns = ["set", "surfaces", "defence", "measure", "rate", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def by_category(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Table 10 of MARS: refusal of harmful clips by the kind of thing that they show.

    Returns:
        category, defence, rate, low, high, n; no rows where there are no clips.
    """
    kinds = {
        p.id: _category(p)
        for p in study.data.tests
        if group_of(p) == "attack" and p.surface in STANDS_FOR["Video-SafetyBench"]
    }
    part = frame[frame["prompt_id"].isin(kinds) & ~frame["failed"]].assign(
        category=lambda rows: rows["prompt_id"].map(kinds)
    )
    rows = [
        {"category": category, "defence": defence, **Rate.of(answered["refused"].tolist()).as_row()}
        for (category, defence), answered in part.groupby(["category", "defence"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["category", "defence", "rate", "low", "high", "n"])


def prompt_effect(frame: pd.DataFrame) -> pd.DataFrame:
    """Table 7 of MARS: a harmful picture under harmful words, under neutral words, and there with MARS.

    Of HADES the harmful words are its authors', which it has for the last of its six steps.

    Returns:
        request, defence, rate, low, high, n.
    """
    cases = (
        ("harmful words", ("hades", "both"), "Orig."),
        ("neutral words", ("hades/neutral", "image"), "Orig."),
        ("neutral words", ("hades/neutral", "image"), "MARS"),
    )
    attacks = frame[(frame["group"] == "attack") & ~frame["failed"]]
    there = list(dict.fromkeys(attacks["surface"]))
    rows = []
    for request, wanted, defence in cases:
        shown = attacks["surface"].isin(either_of(wanted, among=there))
        part = attacks[shown & (attacks["defence"] == defence)]
        if part.empty:
            continue
        rows.append({"request": request, "defence": defence, **Rate.of(part["refused"].tolist()).as_row()})
    return pd.DataFrame(rows, columns=["request", "defence", "rate", "low", "high", "n"])


def _category(prompt: Prompt) -> str:
    """As the set has it, or the kind of the world's thing; files of one's own do not say it."""
    known = prompt.metadata
    return thing(known["thing"]).kind if "thing" in known else known.get("category", "not said")


def triggered(frame: pd.DataFrame) -> pd.DataFrame:
    """How often each gate opens, by group and surface.

    Returns:
        group, surface, defence, rate, low, high, n.
    """
    gated = frame[frame["triggered"].notna()]
    rows = [
        {"group": g, "surface": s, "defence": d, **Rate.of(part["triggered"].astype(bool).tolist()).as_row()}
        for (g, s, d), part in gated.groupby(["group", "surface", "defence"], sort=False)
    ]
    return pd.DataFrame(rows)


def plane(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method's attack success against its refusals of harmless requests, over all test prompts of the kind.

    Returns:
        method, x, x_low, x_high (harmless and borderline requests refused), y, y_low, y_high (attacks carried out).
    """
    rows = []
    for defence, answered in frame[~frame["failed"]].groupby("defence", sort=False):
        harmless = answered[answered["group"].isin(["benign", "borderline"])]
        refused = Rate.of(harmless["refused"].astype(bool).tolist())
        unsafe = Rate.of(answered.loc[answered["group"] == "attack", "unsafe"].astype(bool).tolist())
        rows.append(
            {
                "method": defence,
                **{"x": refused.value, "x_low": refused.low, "x_high": refused.high},
                **{"y": unsafe.value, "y_low": unsafe.low, "y_high": unsafe.high},
            }
        )
    return pd.DataFrame(rows)
