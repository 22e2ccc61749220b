"""From prompts and defences to one table of judged answers.

    for each batch of prompts:          encoded once
        for each defence:               answers that are on record are not generated again
            answers → records (JSON lines)
    records → judge → one row a (prompt, defence)

Running the same call again is the resume: an interrupted run goes on where it was, and a finished one
only reads. Verdicts are not recorded, they are passed anew: another judge needs no new answers.

How answers that are missing are made, and what becomes of rows that cannot be answered: answering.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from autosteer_lib.answerers import Answerer, OneByOne
from autosteer_lib.answering import MEASURED
from autosteer_lib.arguments import check_given, check_whole
from autosteer_lib.defences.base import Defence
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import BatchJudge, Judge, Opinion, check_judge, is_correct, opinions
from autosteer_lib.metrics import Rate, holm, mcnemar
from autosteer_lib.models import MLLM, check_mllm
from autosteer_lib.prompts import Prompt, prompts_of
from autosteer_lib.recorded_answers import recorded_answers

BASELINE = "Orig."
_NULLABLE = {
    **dict.fromkeys(
        ("harmful", "unsafe", "refused", "correct", "raw_unsafe", "raw_refused", "triggered"), "boolean"
    ),
    **dict.fromkeys(("new_tokens", "prompt_tokens", "model_calls"), "Int64"),
    **dict.fromkeys(("gate_score", "seconds"), "float64"),
}


class FailedRows(UserWarning):
    """Rows of a table have no answer."""


def evaluate(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    *,
    judge: Judge | BatchJudge,
    settings: GenerationSettings,
    records: Path,
    seed: int = 0,
    progress: bool = True,
    answerer: Answerer | None = None,
) -> pd.DataFrame:
    """Answer every prompt under every defence and judge the answers.

    Args:
        mllm: the model.
        prompts: with unique ids; labels (surface, harmful, reference) are copied into the table.
        defences: name in tables → fitted defence.
        judge: asked about each answer, recorded or new.
        settings: length of the answers and size of the batches.
        records: the folder of answers, made if it does not exist; one folder serves any number of runs, in turn or
            at once, of other prompts, defences and settings too.
        seed: part of each answer's key, and the seed of torch before each batch.
        progress: show a bar.
        answerer: makes the answers that are missing; this process if left out, many under `scale_out.OnRay`.

    Returns:
        One row a (defence, prompt), in the given orders, with the columns prompt_id, surface, harmful,
        defence, answer, unsafe, refused, correct, detail, raw_answer, raw_unsafe, raw_refused, gate_score,
        triggered, new_tokens, prompt_tokens, model_calls, seconds, failed. The raw columns hold the answer that
        a defence found before it kept or replaced it, and its verdict; they are empty for all other defences.
        A row that failed has its error in `detail`, and nothing else. A judge may leave a verdict open.

    Warns:
        FailedRows: some rows failed.

    Raises:
        TypeError: what is given as model, prompts, defences, judge, settings or seed is none; told before anything is asked.
        RecordError: a record file is damaged, or the disk is full.
        RuntimeError: nothing could be answered under one of the defences; says why.
    """
    prompts = prompts_of(prompts, name="prompts")
    _check_ids(prompts)
    _check_defences(defences)
    check_judge(judge)
    check_given(settings, GenerationSettings, name="settings", remedy="GenerationSettings(max_new_tokens=…)")
    check_given(records, (str, Path), name="records", remedy="the folder that answers are kept in")
    check_whole(seed=seed)
    check_mllm(mllm)
    records_of = recorded_answers(
        mllm, prompts, defences, settings=settings, records=records, seed=seed, progress=progress,
        answerer=OneByOne() if answerer is None else answerer,
    )  # fmt: skip
    frame = _table(prompts, records_of, judge)
    if failed := int(frame["failed"].sum()):
        example = frame[frame["failed"]].iloc[0]
        warnings.warn(
            f"{failed} of {len(frame)} rows failed and have no answer ({example['defence']}, prompt "
            f"{example['prompt_id']!r}: {example['detail']}); running again tries them again",
            FailedRows,
            stacklevel=2,
        )
    return frame


def rates_by(frame: pd.DataFrame, columns: Sequence[str], *, measure: str = "unsafe") -> pd.DataFrame:
    """Rates of a yes-or-no column with Wilson's 95 % interval, by groups in order of appearance.

    Rows where the measure is not defined (`correct` without a reference, a row that failed) do not count.

    Returns:
        The columns, then measure, rate, low, high, n.
    """
    known = _defined(frame, measure)
    rows = []
    for values, group in known.groupby(list(columns), sort=False, dropna=False):
        rate = Rate.of(group[measure].astype(bool))
        rows.append({
            **dict(zip(columns, values, strict=True)),
            "measure": measure, **rate.as_row(),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[*columns, "measure", "rate", "low", "high", "n"])


def comparison_table(
    frame: pd.DataFrame, *, measure: str = "unsafe", by: str = "surface", baseline: str = BASELINE
) -> pd.DataFrame:
    """AutoSteer's Table 1: the rate of each defence on each set and its change against the baseline.

    The test is McNemar's, on the same prompts under both, those aside that failed under one; p_holm is
    adjusted for all comparisons in the table.

    Returns:
        The column `by`, then defence, measure, rate, low, high, n, change, gained, lost, p, p_holm.
        `gained` counts prompts that became true under the defence. The baseline's own p is NaN.
    """
    known = _defined(frame, measure)
    table = rates_by(known, [by, "defence"], measure=measure)
    # Open verdicts stay in: paired prompts must be the same ones, and those that lack one of two are dropped there.
    outcomes = {
        place: pd.Series(rows[measure].array, index=rows["prompt_id"])
        for place, rows in frame.groupby([by, "defence"], sort=False, dropna=False)
    }
    tests = [
        _against_baseline(outcomes, place, str(defence), baseline=baseline)
        for place, defence in zip(table[by], table["defence"], strict=True)
    ]
    table = table.join(pd.DataFrame(tests, index=table.index))
    return table.assign(p_holm=holm(table["p"].tolist()))


def costs(frame: pd.DataFrame, *, by: Sequence[str] = ("defence",)) -> pd.DataFrame:
    """Mean price of an answer over all its calls: seconds (which vary from run to run), calls, tokens."""
    columns = ["seconds", "model_calls", "prompt_tokens", "new_tokens"]
    return frame.groupby(list(by), sort=False)[columns].mean().astype("float64").reset_index()


def failures(frame: pd.DataFrame, *, by: Sequence[str] = ("surface", "defence")) -> pd.DataFrame:
    """How many rows have no answer, and why.

    Returns:
        The columns `by`, then failed, n, error (of the first). Groups without a failed row are left out.
    """
    rows = []
    for values, group in frame.groupby(list(by), sort=False, dropna=False):
        failed = group[group["failed"]]
        if not failed.empty:
            counts = {"failed": len(failed), "n": len(group), "error": failed["detail"].iloc[0]}
            rows.append({**dict(zip(by, values, strict=True)), **counts})
    return pd.DataFrame(rows, columns=[*by, "failed", "n", "error"])


def _table(
    prompts: Sequence[Prompt],
    records: Mapping[str, Sequence[Mapping[str, object]]],
    judge: Judge | BatchJudge,
) -> pd.DataFrame:
    cells = [
        (name, prompt, record)
        for name, listed in records.items()
        for prompt, record in zip(prompts, listed, strict=True)
    ]
    verdicts = {field: _judged(cells, field, judge) for field in ("text", "raw_text")}
    rows = [
        _row(name, prompt, record, verdicts["text"].get(index), verdicts["raw_text"].get(index))
        for index, (name, prompt, record) in enumerate(cells)
    ]
    return pd.DataFrame(rows).astype(_NULLABLE)


def _judged(
    cells: Sequence[tuple[str, Prompt, Mapping[str, object]]], field: str, judge: Judge | BatchJudge
) -> dict[int, Opinion]:
    """Where there is such an answer, what the judge says of it."""
    there = [index for index, (_, _, record) in enumerate(cells) if record.get(field) is not None]
    answers = [str(cells[index][2][field]) for index in there]
    return dict(zip(there, opinions(judge, [cells[index][1] for index in there], answers), strict=True))


def _row(
    defence: str,
    prompt: Prompt,
    record: Mapping[str, object],
    verdict: Opinion | None,
    before: Opinion | None,
) -> dict[str, object]:
    failed = verdict is None
    answer = None if failed else str(record["text"])
    return {
        "prompt_id": prompt.id, "surface": prompt.surface, "harmful": prompt.harmful, "defence": defence,
        "answer": answer, "unsafe": verdict and verdict.unsafe, "refused": verdict and verdict.refused,
        "correct": None if answer is None else is_correct(prompt, answer),
        "detail": verdict.detail if verdict else record["error"],
        "raw_answer": record.get("raw_text"), "raw_unsafe": before and before.unsafe,
        "raw_refused": before and before.refused,
        **{name: record.get(name) for name in MEASURED}, "failed": failed,
    }  # fmt: skip


def _against_baseline(
    outcomes: Mapping[Any, pd.Series], place: Hashable, defence: str, *, baseline: str
) -> dict[str, float]:
    after = outcomes[place, defence]
    before = outcomes.get((place, baseline), after.iloc[:0])
    if before.empty or not before.index.sort_values().equals(after.index.sort_values()):
        raise ValueError(
            f"{defence} ({len(after)} prompts) and {baseline} ({len(before)}) were not measured on the same prompts; "
            f"a paired comparison needs both on each: evaluate them together"
        )
    if defence == baseline:
        return {"change": 0.0, "gained": 0, "lost": 0, "p": float("nan")}
    after = after.loc[before.index]
    both = (before.notna() & after.notna()).to_numpy()
    test = mcnemar(before[both].astype(bool).tolist(), after[both].astype(bool).tolist())
    change = (test.gained - test.lost) / both.sum() if both.any() else float("nan")
    return {"change": change, "gained": test.gained, "lost": test.lost, "p": test.p}


def _defined(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    if measure not in frame:
        raise ValueError(f"no column {measure!r} to take rates of; there are: {', '.join(frame.columns)}")
    known = frame[frame[measure].notna()]
    if known.empty:
        raise ValueError(
            f"{measure!r} is defined for none of the {len(frame)} rows: there is no rate to take"
        )
    return known


def _check_defences(defences: Mapping[str, Defence]) -> None:
    example = f"{{{BASELINE!r}: Undefended()}}"
    if not defences:
        raise ValueError(f"no defences to evaluate; give at least one, for example {example}")
    if not isinstance(defences, Mapping):
        raise TypeError(
            f"defences is a {type(defences).__name__}; give each a name for the table, as in {example}"
        )
    for name, defence in defences.items():
        if not isinstance(defence, Defence):
            what = f"the class {defence.__name__}" if isinstance(defence, type) else repr(defence)[:60]
            raise TypeError(f"defence {name!r} is {what}; give a defence itself, as in {example}")


def _check_ids(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise ValueError("no prompts to evaluate")
    seen: set[str] = set()
    for position, prompt in enumerate(prompts):
        if not prompt.id or prompt.id in seen:
            what = "has no id" if not prompt.id else f"has the id {prompt.id!r} of an earlier one"
            raise ValueError(f"prompt {position} {what}; ids tell rows apart, so give each prompt its own")
        seen.add(prompt.id)
