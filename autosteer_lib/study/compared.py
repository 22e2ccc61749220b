"""Chapter 08: every defence on the same prompts: attacks by surface, harmless requests, utility, price.

Each method stands there twice: in its published setting, and in the one that the validation prompts chose
(compared_choice.py). The undefended model is the baseline of all paired tests.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from autosteer_lib.defences import Defence
from autosteer_lib.evaluation import BASELINE, comparison_table, costs
from autosteer_lib.metrics import Rate
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.compared_choice import (
    CHOSEN,
    PUBLISHED,
    Candidates,
    candidates,
    settled,
    validated,
)
from autosteer_lib.study.compared_data import ComparedData, compared_data
from autosteer_lib.study.gap import MEASURES
from autosteer_lib.study.outcome import first_of_each_set
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import IN_SIGHT, kind_of

SETTINGS = (PUBLISHED, CHOSEN)
REFUSED, RIGHT = "refusal", "right answers"


def tests(study: Study) -> list[Prompt]:
    """The first prompts of each test set."""
    return first_of_each_set(study.data.tests, study.profile.compared.tests)


def source_study(study: Study) -> Study | None:
    """The study whose model lends its direction, as the profile says; it writes into the same build."""
    name = study.profile.compared.transfer_from
    return Study(load_profile(name), study.seed, study.artefacts) if name else None


def fitted(study: Study, data: ComparedData) -> Candidates:
    """Every method of this study's model, in all of its settings."""
    return candidates(study, data, source=source_study(study))


def left_out(study: Study, found: Candidates) -> pd.DataFrame:
    """Methods of the papers that are not in the tables, and what each of them needs.

    Args:
        study: the study.
        found: of `candidates`, which knows what could not be fitted on this model.

    Returns:
        method, needs.
    """
    rows = [
        (
            "AdaShield-A",
            "a second language model that writes prompts, and CLIP to find the one for a request",
        ),
        ("ETA", "a reward model of 8B and CLIP; best of five candidates for each sentence"),
        ("MRD", "code or numbers: SafeSteer's tables name it, no description was found"),
    ]
    if study.profile.compared.transfer_from is False:
        rows.insert(0, ("Activation transfer", "a second model of the same world ([compared] transfer_from)"))
    if not study.profile.model.add_generation_prompt:
        header = "prompts that end in the assistant's header ([model] add_generation_prompt = true)"
        rows.insert(0, ("Refusal direction", header))
    rows = [*found.left_out.items(), *rows]
    return pd.DataFrame(rows, columns=["method", "needs"])


def answers(study: Study, methods: Mapping[str, Mapping[str, Defence]]) -> pd.DataFrame:
    """The test prompts under every method in every setting.

    Args:
        study: the study.
        methods: setting → method → defence, the undefended model in each.

    Returns:
        setting, and the columns of `evaluate`.
    """
    asked = {
        f"{setting} {method}": (setting, method, defence)
        for setting, found in methods.items()
        for method, defence in found.items()
    }
    # In one call: a defence that is the same in two settings answers once and is read twice.
    frame = study.evaluate({name: defence for name, (_, _, defence) in asked.items()}, tests(study))
    settings, names = (frame["defence"].map({k: v[i] for k, v in asked.items()}) for i in (0, 1))
    return frame.assign(setting=settings, defence=names)


def chosen_answers(study: Study) -> pd.DataFrame:
    """All of the chapter up to its answers, for one study, in the settings that its validation prompts choose.

    Returns:
        As `answers`.
    """
    data = compared_data(study)
    found = fitted(study, data)
    chosen = settled(found, validated(study, found, data), CHOSEN)
    return answers(study, {CHOSEN: chosen})


def by_surface(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method on each test set, against the undefended model, for one setting after the other.

    Returns:
        setting, group, surface, defence, measure, rate, low, high, n, change, gained, lost, p, p_holm (over all
        comparisons of a setting, group and measure). Attacks are there twice, carried out and refused, as what is
        neither may be noise; so are twins, refused and answered rightly where that is known.
    """
    return pd.concat([_compared(frame), *_otherwise(frame)], ignore_index=True)


def overall(frame: pd.DataFrame) -> pd.DataFrame:
    """The same over all surfaces of a group; attacks also apart: harm in sight, harm in words.

    "In sight" counts what nothing but the sight tells: pictures, writing, clips.

    Returns:
        as `by_surface`, with the part in the surface's place ("all", "in sight", "in words or both"); p_holm is over
        the comparisons within a part.
    """
    parts = [frame.assign(surface="all")]
    attacks = frame[frame["group"] == "attack"]
    seen = attacks["surface"].map(kind_of).isin(IN_SIGHT)
    apart = [attacks[seen].assign(surface="in sight"), attacks[~seen].assign(surface="in words or both")]
    parts += [part for part in apart if len(part)]
    tables = [*(_compared(part) for part in parts), *_otherwise(parts[0])]
    return pd.concat(tables, ignore_index=True)


def headline(table: pd.DataFrame, price: pd.DataFrame) -> pd.DataFrame:
    """One row a method and setting: what a reader looks for first.

    Args:
        table: of `overall`.
        price: of `cost`.

    Returns:
        setting, defence, attacks, in_sight, attacks_refused, twins (refused), twins_right, borderline, utility, calls,
        tokens (times the undefended model's).
    """
    names = {
        ("attack", "all", "attack success"): "attacks",
        ("attack", "in sight", "attack success"): "in_sight",
        ("attack", "all", REFUSED): "attacks_refused",
        ("benign", "all", REFUSED): "twins",
        ("benign", "all", RIGHT): "twins_right",
        ("borderline", "all", REFUSED): "borderline",
        ("utility", "all", "accuracy"): "utility",
    }
    keys = pd.MultiIndex.from_frame(table[["group", "surface", "measure"]])
    known = table.assign(name=keys.map(names)).dropna(subset="name")
    order = list(dict.fromkeys(zip(known["setting"], known["defence"], strict=True)))
    wide = known.pivot(index=["setting", "defence"], columns="name", values="rate")
    paid = price.set_index(["setting", "defence"])
    wide = wide.reindex(columns=list(names.values())).join(paid[["model_calls", "times_tokens"]])
    wide = wide.rename(columns={"model_calls": "calls", "times_tokens": "tokens"})
    return wide.loc[order].reset_index().rename_axis(columns=None)


def cost(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean price of an answer, exact: calls, tokens read and tokens written, and their sum relative to no defence.

    Returns:
        setting, defence, model_calls, prompt_tokens, new_tokens, times_tokens.
    """
    table = costs(frame, by=("setting", "defence")).drop(columns="seconds")
    tokens = table["prompt_tokens"] + table["new_tokens"]
    plain = tokens[table["defence"] == BASELINE].groupby(table["setting"]).first()
    return table.assign(times_tokens=tokens / table["setting"].map(plain))


def seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds of an answer; they vary from run to run.

    Returns:
        setting, defence, seconds.
    """
    return costs(frame, by=("setting", "defence"))[["setting", "defence", "seconds"]]


def triggers(frame: pd.DataFrame) -> pd.DataFrame:
    """How often each gate opens or each check fires, by group.

    Returns:
        setting, group, defence, rate, low, high, n.
    """
    gated = frame[frame["triggered"].notna()]
    rows = [
        {
            "setting": setting,
            "group": group,
            "defence": defence,
            **Rate.of(part["triggered"].astype(bool).tolist()).as_row(),
        }
        for (setting, group, defence), part in gated.groupby(["setting", "group", "defence"], sort=False)
    ]
    return pd.DataFrame(rows)


def raw_and_defended(frame: pd.DataFrame) -> pd.DataFrame:
    """Methods that replace answers: the answer that the model gave first and the one that was handed out, judged apart.

    Returns:
        setting, group, defence, measure (of both answers, as MEASURES calls it; and "replaced": answers that are other
        than at first), answer ("first", "handed out"), rate, low, high, n.
    """
    rows = []
    replaced = frame[frame["raw_answer"].notna()]
    for (setting, group, defence), part in replaced.groupby(["setting", "group", "defence"], sort=False):
        if group == "utility":
            continue
        column, name = MEASURES[str(group)]
        of = {"setting": setting, "group": group, "defence": defence}
        for measure, answer, outcomes in (
            (name, "first", part[f"raw_{column}"].astype(bool)),
            (name, "handed out", part[column].astype(bool)),
            ("replaced", "handed out", part["raw_answer"] != part["answer"]),
        ):
            rate = Rate.of(outcomes.tolist()).as_row()
            rows.append({**of, "measure": measure, "answer": answer, **rate})
    return pd.DataFrame(rows)


def plane(frame: pd.DataFrame, *, against: str) -> pd.DataFrame:
    """Each method's attack success against what it costs the harmless.

    Args:
        frame: answers in one setting.
        against: "spoilt" (twins and borderline requests that are refused, or answered wrongly where the right answer is
            known) or "utility" (questions that are answered rightly).

    Returns:
        method, x, x_low, x_high, y, y_low, y_high (attacks carried out).
    """
    if against not in ("spoilt", "utility"):
        raise ValueError(f"against={against!r} is not known; allowed: 'spoilt', 'utility'")
    rows = []
    for defence, part in frame[~frame["failed"]].groupby("defence", sort=False):
        if against == "utility":
            cost = part.loc[part["group"] == "utility", "correct"].astype(bool)
        else:
            asked = part[part["group"].isin(["benign", "borderline"])]
            cost = asked["refused"].astype(bool) | ~asked["correct"].fillna(True).astype(bool)
        carried_out = part.loc[part["group"] == "attack", "unsafe"].astype(bool)
        x, y = Rate.of(cost.tolist()), Rate.of(carried_out.tolist())
        rows.append({"method": defence, **_at("x", x), **_at("y", y)})
    return pd.DataFrame(rows)


def against_price(frame: pd.DataFrame, price: pd.DataFrame) -> pd.DataFrame:
    """Each method's attack success against the tokens of an answer, relative to no defence.

    Returns:
        method, x, y, y_low, y_high.
    """
    table = plane(frame, against="spoilt").drop(columns=["x", "x_low", "x_high"])
    times = price.set_index("defence")["times_tokens"]
    table.insert(1, "x", table["method"].map(times))
    return table


def _compared(frame: pd.DataFrame, *, measures: Mapping[str, tuple[str, str]] = MEASURES) -> pd.DataFrame:
    tables = []
    for (setting, group), rows in frame.groupby(["setting", "group"], sort=False):
        column, name = measures[str(group)]
        table = comparison_table(rows, measure=column, by="surface")
        table["measure"] = name
        table.insert(0, "setting", str(setting))
        table.insert(1, "group", str(group))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _otherwise(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Attacks by whether they are refused, twins by whether they are answered rightly."""
    attacks = frame[frame["group"] == "attack"]
    twins = frame[(frame["group"] == "benign") & frame["correct"].notna()]
    tables = [_compared(attacks, measures={"attack": ("refused", REFUSED)})]
    if len(twins):
        tables.append(_compared(twins, measures={"benign": ("correct", RIGHT)}))
    return tables


def _at(axis: str, rate: Rate) -> dict[str, float]:
    return {axis: rate.value, f"{axis}_low": rate.low, f"{axis}_high": rate.high}
