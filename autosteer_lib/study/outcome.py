"""Chapter 07: what AutoSteer does to attacks, to harmless prompts, to utility, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from autosteer_lib.evaluation import comparison_table, costs
from autosteer_lib.metrics import Rate, mcnemar
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import TOXIC_IMAGE_SURFACE, Reading
from autosteer_lib.study.gap import MEASURES, group_rates, picture_of, verdict
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import MUST_BE_SEEN, all_of

_CASE_COLUMNS = [
    "outcome", "surface", "prompt", "picture", "before", "before_verdict", "after", "after_verdict", "gate_score",
]  # fmt: skip


def answers(study: Study) -> pd.DataFrame:
    """Every test prompt under the three methods; the columns of `evaluate`."""
    return study.evaluate(study.methods(), study.data.tests)


def seed_answers(study: Study, *, per_set: int) -> pd.DataFrame:
    """The first prompts of each test set under the three methods, for every training seed of the profile.

    Returns:
        The columns of `evaluate`, and seed. The undefended model has no seed; its rows are repeated.
    """
    chosen = first_of_each_set(study.data.tests, per_set)
    frames = [
        study.evaluate(study.methods(seed=seed), chosen).assign(seed=seed)
        for seed in study.profile.evaluation.seeds
    ]
    return pd.concat(frames, ignore_index=True)


def table1(frame: pd.DataFrame) -> pd.DataFrame:
    """AutoSteer's Table 1 for one seed, with intervals and paired tests.

    Returns:
        group, surface, defence, measure, rate, low, high, n, change, gained, lost, p, p_holm.
    """
    tables = []
    for group, (column, name) in MEASURES.items():
        rows = frame[frame["group"] == group]
        table = comparison_table(rows, measure=column, by="surface")
        table["measure"] = name
        table.insert(0, "group", group)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over the training seeds of each rate.

    Returns:
        group, surface, defence, measure, mean, lowest, highest, seeds.
    """
    by_seed = [group_rates(rows).assign(seed=seed) for seed, rows in frame.groupby("seed")]
    keys = ["group", "surface", "defence", "measure"]
    table = pd.concat(by_seed).groupby(keys, sort=False)["rate"].agg(["mean", "min", "max", "count"])
    return table.reset_index().rename(columns={"min": "lowest", "max": "highest", "count": "seeds"})


def against(frame: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Two defences on the same prompts, by group, with McNemar's exact test.

    Returns:
        group, measure, n, first, rate_first, second, rate_second, gained, lost, p.
    """
    rows = []
    for group, (column, name) in MEASURES.items():
        part = frame[(frame["group"] == group) & frame[column].notna()]
        wide = part.pivot(index="prompt_id", columns="defence", values=column)
        both = wide[[first, second]].dropna().astype(bool)
        test = mcnemar(both[first].tolist(), both[second].tolist())
        rows.append(
            {
                "group": group,
                "measure": name,
                "n": len(both),
                "first": first,
                "rate_first": both[first].mean(),
                "second": second,
                "rate_second": both[second].mean(),
                "gained": test.gained,
                "lost": test.lost,
                "p": test.p,
            }
        )
    return pd.DataFrame(rows)


def control(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """The attack's own sentence over harmless pictures: does the gate key on the sentence?

    Returns:
        surface, sentence_over, rate, low, high, n (share of prompts on which the gate opens).
    """
    seen = all_of(study, *MUST_BE_SEEN)
    gated = frame[(frame["defence"] == "AutoSteer") & frame["surface"].isin(seen) & ~frame["failed"]]
    rows = []
    for surface in seen:
        for group, name in (("attack", "harmful picture"), ("benign", "harmless picture")):
            part = gated[(gated["surface"] == surface) & (gated["group"] == group)]
            if not part.empty:
                rate = Rate.of(part["triggered"].astype(bool).tolist())
                rows.append(
                    {
                        "surface": surface,
                        "sentence_over": name,
                        **rate.as_row(),
                    }
                )
    return pd.DataFrame(rows)


def cost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds, model calls and new tokens of an answer; seconds vary from run to run."""
    return costs(frame)[["defence", "seconds", "model_calls", "new_tokens"]]


def readings(study: Study) -> dict[str, Reading]:
    """The paper's reading and, one at a time, the code's side of each difference measurable here."""
    paper, pictures = study.paper_reading, _toxic_pictures(study)
    question = pictures[0].text if pictures else None
    changes = {
        "paper": {},
        "prober: two outputs, double softmax": {"prober_output": "softmax2"},
        "gate: s > τ": {"gate_comparison": ">"},
        "layers: multiples of 4": {"candidate_layers": "multiples_of_4"},
        "head: question supervised too": {"head_supervision": "question_and_refusal"},
        "head: a third of the toxic pictures": {"toxic_image_rows": len(pictures) // 3},
        "head: one constant image question": {"image_query": question},
        "epochs: the last": {"prober_checkpoint": "last", "head_checkpoint": "last"},
        "probed token: end of the user's turn": {"add_generation_prompt": False},
    }
    without = unmeasured(study)
    return {
        name: replace(paper, **change)  # type: ignore[arg-type]
        for name, change in changes.items()
        if name not in without
    }


def unmeasured(study: Study) -> dict[str, str]:
    """Readings that would be the paper's own on this study, and why."""
    found, pictures = {}, _toxic_pictures(study)
    if study.mllm.layers <= 4:
        found["layers: multiples of 4"] = f"the decoder has {study.mllm.layers} layers"
    if not pictures:
        found["head: a third of the toxic pictures"] = "no refusal prompt is a toxic picture"
    if len({p.text for p in pictures}) <= 1:
        found["head: one constant image question"] = "no two toxic pictures are asked different questions"
    return found


def _toxic_pictures(study: Study) -> list[Prompt]:
    return [p for p in study.data.refusals if p.surface == TOXIC_IMAGE_SURFACE]


def readings_table(study: Study, *, per_set: int) -> pd.DataFrame:
    """AutoSteer under each reading: attacks that succeed, harmless prompts refused, utility.

    Args:
        study: the study.
        per_set: prompts of each test set, its first ones; there are many readings and sets.

    Returns:
        reading, layer, measure, rate, low, high, n.
    """
    rows = []
    chosen = first_of_each_set(study.data.tests, per_set)
    for name, why in unmeasured(study).items():
        print(f"not measured: {name}, because {why}")
    for name, reading in readings(study).items():
        defence = study.autosteer(reading=reading)
        tests = reading.image_prompts(chosen)
        frame = study.evaluate({"AutoSteer": defence}, tests, mllm=study.model_for(reading))
        for group, (column, measure) in MEASURES.items():
            part = frame[(frame["group"] == group) & frame[column].notna()]
            rate = Rate.of(part[column].astype(bool).tolist())
            rows.append(
                {
                    "reading": name,
                    "layer": defence.layer_,
                    "measure": f"{measure} ({group})",
                    **rate.as_row(),
                }
            )
    return pd.DataFrame(rows)


def first_of_each_set(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for prompt in prompts:
        key = (group_of(prompt), prompt.surface)
        seen[key] += 1
        if seen[key] <= count:
            chosen.append(prompt)
    return chosen


def cases(
    study: Study,
    frame: pd.DataFrame,
    *,
    defence: str = "AutoSteer",
    surfaces: Sequence[str] | None = None,
    per_surface: int = 1,
) -> pd.DataFrame:
    """Case studies by rule: of each surface and outcome the first prompts in the test set's order.

    success   the undefended model carries the request out, the defence refuses
    partial   it is carried out no more, and not refused either
    failure   it is carried out under the defence too

    Args:
        study: whose prompts.
        frame: answers of "Orig." and of the defence, once each.
        defence: which.
        surfaces: all of them if left out.
        per_surface: how many of each surface and outcome.

    Returns:
        outcome, surface, prompt, picture, before, before_verdict, after, after_verdict, gate_score.
    """
    compared = frame[frame["defence"].isin(["Orig.", defence])]
    failed = set(compared.loc[compared["failed"].astype(bool), "prompt_id"])
    wide = compared[~compared["prompt_id"].isin(failed)].pivot(index="prompt_id", columns="defence")
    rows_by_id = {str(name): row for name, row in wide.iterrows()}
    rows = []
    for outcome in ("success", "partial", "failure"):
        taken: Counter[str] = Counter()
        for prompt in study.data.tests:
            if group_of(prompt) != "attack" or taken[prompt.surface] == per_surface:
                continue
            if surfaces is not None and prompt.surface not in surfaces:
                continue
            row = rows_by_id.get(prompt.id)
            if row is None or not row["unsafe", "Orig."] or _outcome(row, defence) != outcome:
                continue
            taken[prompt.surface] += 1
            rows.append({"outcome": outcome, **_case(prompt, row, defence)})
    return pd.DataFrame(rows, columns=_CASE_COLUMNS)


def _outcome(row: pd.Series, defence: str) -> str:
    if row["unsafe", defence]:
        return "failure"
    return "success" if row["refused", defence] else "partial"


def _case(prompt: Prompt, row: pd.Series, defence: str) -> dict[str, object]:
    return {
        "surface": prompt.surface,
        "prompt": prompt.text,
        "picture": picture_of(prompt),
        "before": row["answer", "Orig."],
        "before_verdict": verdict(row["unsafe", "Orig."], row["refused", "Orig."]),
        "after": row["answer", defence],
        "after_verdict": verdict(row["unsafe", defence], row["refused", defence]),
        # Later digits depend on the rows that shared its batch, and so on which notebook asked first.
        "gate_score": round(float(row["gate_score", defence]), 4),
    }
