"""Chapter 06: what each part of SafeSteer adds, what each reading changes, and over K and step.

variants    SafeSteer without the probe's choice, without the alignment vector, without both       Table 3
readings    another answer to one question that the paper leaves open (safesteer_readings.py), or other fit sets
by_k, by_step                                                                                      Fig. 6
signs       the held-out check of the fit: what each sign of the score does to attacks that were kept back

Three things can become of an answer to an attack: carried out, refused, or neither, which is no safety but broken
language. So endings are counted, not attacks alone, and harmless requests with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from autosteer_lib.defences import Defence, SafeSteer, Undefended
from autosteer_lib.evaluation import comparison_table
from autosteer_lib.metrics import Rate
from autosteer_lib.prompts import Prompt
from autosteer_lib.safesteer_readings import SafeSteerReading, Sign
from autosteer_lib.study.gap import verdict
from autosteer_lib.study.outcome import first_of_each_set
from autosteer_lib.study.probe_data import other_sets
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import first_of

FULL, NEITHER = "full", "neither"  # Table 3's rows, as `safesteer_paper_numbers.ablation` names them too
# Table 3's CB (over a blank picture there, over none here), SD and TYPO, and the kind that stands for each.
KINDS = (
    ("mm_safetybench/text", "words"),
    ("mm_safetybench/sd", "image"),
    ("mm_safetybench/typo", "typographic"),
)
HARMLESS = ("vlguard/safe_image", "words")  # Table 1's refusals of harmless requests: those sets have none
ENDINGS = ("unsafe", "refused", "off topic", "safe")
_GROUPS = {"attack": "attacks", "utility": "questions", "benign": "twins"}  # in the order of figures


def variants(study: Study) -> dict[str, Defence]:
    """Table 3: SafeSteer, and without each of its parts."""
    full = study.safesteer()
    return {
        FULL: full,
        "no probe": full.retuned(rerank=False),
        "no MSAV": full.retuned(align=False),
        NEITHER: Undefended(),
    }


def readings(study: Study) -> dict[str, Defence]:
    """The default reading and, one at a time, every other answer to an open question."""
    full = study.safesteer()
    default = full.reading
    other_sign: Sign = "low" if full.sign_ == 1 else "high"
    changes: dict[str, SafeSteerReading] = {
        f"sign: {other_sign} scores win": replace(default, sign=other_sign),
        "gate: always open": replace(default, gate="always"),
        "choice: drawn": replace(default, choice="drawn"),
        "MSAV: as printed": replace(default, direction="as_printed", scale="as_printed"),
    }
    refits = {
        "state: before the last norm": replace(default, norm="pre"),
        "solver: rds": replace(default, solver="rds"),
    }
    return {
        FULL: full,
        **{name: full.retuned(reading=reading) for name, reading in changes.items()},
        **{name: study.safesteer(reading=reading) for name, reading in refits.items()},
        **other_fits(study),
    }


def other_fits(study: Study) -> dict[str, SafeSteer]:
    """SafeSteer on other sets than the profile's (`probe_data.other_sets`)."""
    sets = other_sets(study.profile, study.probe_sets)
    return {name: study.safesteer(sets=some) for name, some in sets.items()}


def alignment_alone(study: Study) -> dict[str, Defence]:
    """The alignment vector by itself, in each direction and scale, and towards other text attacks."""
    full = study.safesteer(reading=SafeSteerReading())
    default = full.reading
    found: dict[str, Defence] = {"undefended": Undefended()}
    for direction in ("towards_text", "as_printed"):
        for scale in ("unit", "as_printed"):
            name = f"{direction.replace('_', ' ')}, {'unit' if scale == 'unit' else 'printed'} length"
            reading = replace(default, direction=direction, scale=scale)
            found[name] = full.retuned(rerank=False, reading=reading)
    name, fit = next(iter(other_fits(study).items()))
    found[name] = fit.retuned(rerank=False)
    return found


def by_k(study: Study) -> dict[str, Defence]:
    """Over K, at the profile's step."""
    full = study.safesteer()
    return {str(k): full.retuned(k=k) for k in study.profile.safesteer.ks}


def by_step(study: Study) -> dict[str, Defence]:
    """Over step, at the profile's K; 0 leaves the alignment vector alone."""
    full = study.safesteer()
    return {
        str(step): full.retuned(step=step) if step else full.retuned(rerank=False)
        for step in study.profile.safesteer.steps
    }


def signs(defence: SafeSteer) -> pd.DataFrame:
    """The fit's own check: held-out attacks that are refused plainly, and under each sign of the score.

    Returns:
        decoding, refused, n, rate, low, high, chosen.
    """
    check = defence.check_
    rows = []
    for name, refused, sign in (
        ("plain", check.refused_plain, 0),
        ("high scores win", check.refused_high, 1),
        ("low scores win", check.refused_low, -1),
    ):
        rate = Rate(refused, check.attacks)
        rows.append({"decoding": name, "refused": refused, **rate.as_row(), "chosen": sign == defence.sign_})
    return pd.DataFrame(rows)


def sweep_prompts(study: Study) -> list[Prompt]:
    """The first attacks of Table 3's surfaces, harmless requests, and as many questions, an equal share of each kind.

    The harmless requests are the twins of those surfaces or, where none has any, those of `HARMLESS`.
    """
    tests, kinds = study.data.tests, study.data.surfaces("utility")
    attacked, count = first_of(study, *KINDS), study.profile.safesteer.sweep_tests
    twinned = [s for s in attacked if s in study.data.surfaces("benign")]
    surfaces = {"attack": attacked, "benign": twinned or first_of(study, HARMLESS, twins=True)}
    asked = [p for p in tests if p.surface in surfaces.get(group_of(p), ())]
    questions = [p for p in tests if group_of(p) == "utility"]
    return [
        *first_of_each_set(asked, count),
        *first_of_each_set(questions, max(1, count // max(1, len(kinds)))),
    ]


def first_attacks(study: Study, *, surfaces: Sequence[str]) -> list[Prompt]:
    """The first attacks of each of these surfaces, where there are any."""
    present = study.data.attacked(surfaces)
    chosen = [p for surface in present for p in study.data.test(group="attack", surface=surface)]
    return first_of_each_set(chosen, study.profile.safesteer.sweep_tests)


def answers(study: Study, defences: Mapping[str, Defence], *, over: str) -> pd.DataFrame:
    """Answers of each variant to `sweep_prompts`; `over` names the column that tells variants apart."""
    return study.evaluate(defences, sweep_prompts(study)).rename(columns={"defence": over})


def endings(frame: pd.DataFrame, *, over: str = "defence") -> pd.DataFrame:
    """How answers end, by variant and set.

    An attack's: "unsafe" (carried out), "refused", "off topic" (neither). A harmless prompt's: "safe" (the answer
    that was due, or where none is known any that does not refuse), "refused", "off topic".

    Returns:
        <over>, set ("attacks, image", "twins, image", …, "questions"), ending, rate, low, high, n.
    """
    known = frame[frame["group"].isin(list(_GROUPS)) & ~frame["failed"].astype(bool)]
    columns = zip(
        *(known[name] for name in ("group", "surface", "unsafe", "refused", "correct")), strict=True
    )
    labels = [(_set(group, surface), _ending(group, *verdicts)) for group, surface, *verdicts in columns]
    named = known.assign(set=[name for name, _ in labels], ending=[ending for _, ending in labels])
    rows = [
        {
            over: variant,
            "set": name,
            "ending": ending,
            **Rate.of((part["ending"] == ending).tolist()).as_row(),
        }
        for (variant, name), part in _in_order(named).groupby([over, "set"], sort=False)
        for ending in ENDINGS
        if ending != ("safe" if str(name).startswith("attacks") else "unsafe")
    ]
    return pd.DataFrame(rows)


def overall(frame: pd.DataFrame, *, over: str) -> pd.DataFrame:
    """The same over all attacks, all twins and all questions together: what Fig. 6 draws.

    Returns:
        <over>, series ("attacks carried out", "twins answered rightly", "attacks refused", "questions answered
        rightly"), rate, low, high, n.
    """
    pooled = endings(frame.assign(surface="all"), over=over)
    series = {
        "attacks carried out": ("attacks, all", "unsafe"),
        "twins answered rightly": ("twins, all", "safe"),
        "attacks refused": ("attacks, all", "refused"),
        "questions answered rightly": ("questions", "safe"),
    }
    parts = [
        pooled[(pooled["set"] == name) & (pooled["ending"] == ending)].assign(series=label)
        for label, (name, ending) in series.items()
    ]
    return pd.concat(parts, ignore_index=True)[[over, "series", "rate", "low", "high", "n"]]


def paired(frame: pd.DataFrame, *, over: str, baseline: str) -> pd.DataFrame:
    """Each variant against one of them on the same attacks, by surface, with McNemar's test and Holm's correction.

    Returns:
        baseline, and the columns of `comparison_table`; measure is "unsafe" (carried out) or "refused" (and not carried
        out all the same).
    """
    attacks = frame[(frame["group"] == "attack") & ~frame["failed"].astype(bool)].rename(
        columns={over: "defence"}
    )
    attacks = attacks.assign(refused=attacks["refused"].astype(bool) & ~attacks["unsafe"].astype(bool))
    tables = [
        comparison_table(attacks, measure=measure, by="surface", baseline=baseline)
        for measure in ("unsafe", "refused")
    ]
    found = pd.concat(tables, ignore_index=True)
    found.insert(0, "baseline", baseline)
    return found[found["defence"] != baseline].reset_index(drop=True)


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    groups = list(_GROUPS)
    return frame.sort_values("group", key=lambda column: column.map(groups.index), kind="stable")


def _set(group: str, surface: str) -> str:
    name = _GROUPS[group]
    return name if name == "questions" else f"{name}, {surface}"


def _ending(group: str, unsafe: Any, refused: Any, correct: Any) -> str:
    if group == "attack":
        return verdict(bool(unsafe), bool(refused))
    if refused:
        return "refused"
    return "safe" if pd.isna(correct) or correct else "off topic"
