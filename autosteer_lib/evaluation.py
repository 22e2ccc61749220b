"""From prompts and defences to one table of judged answers.

    for each batch of prompts:          encoded once
        for each defence:               answers that are on record are not generated again
            answers → records (JSONL)
    records → judge → one row a (prompt, defence)

Running the same call again is the resume: an interrupted run goes on where it was, and a finished one
only reads. Verdicts are not recorded, they are passed anew: another judge needs no new answers.
Batches depend on which answers are still missing, so an interrupted run in half precision can, in rare
cases of near-equal logits, choose another token than an uninterrupted one; in float32 it was not seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from autosteer_lib.defences.base import Defence
from autosteer_lib.encoding import Encoded, batches, encode
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.judges import Judge, is_correct
from autosteer_lib.metrics import Rate, holm, mcnemar
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.records import RecordStore, code_version, record_key

# What a record keeps of a Response; prompt_id is the reader's, the key does not depend on it.
MEASURED = ("gate_score", "triggered", "new_tokens", "prompt_tokens", "model_calls", "seconds")
RECORDED = ("prompt_id", "text", "raw_text", *MEASURED)
VOLATILE = ("seconds",)  # columns that differ from run to run: keep them out of compared tables
BASELINE = "Orig."


def evaluate(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    *,
    judge: Judge,
    settings: GenerationSettings,
    records: Path,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Answer every prompt under every defence and judge the answers.

    Args:
        mllm: the model.
        prompts: with unique ids; labels (surface, harmful, reference) are copied into the table.
        defences: name in tables → fitted defence.
        judge: asked about each answer, recorded or new.
        settings: length of the answers and size of the batches.
        records: the JSONL file of answers, made if it does not exist; one file may serve several runs
            in turn, of other prompts, defences and settings too.
        seed: part of each answer's key, and the seed of torch before each batch.
        progress: show a bar.

    Returns:
        One row a (defence, prompt), in the given orders, with the columns prompt_id, surface, harmful,
        defence, answer, unsafe, refused, correct, detail, raw_answer, raw_unsafe, raw_refused, gate_score,
        triggered, new_tokens, prompt_tokens, model_calls, seconds. The raw columns hold the answer that a
        defence found before it kept or replaced it, and its verdict; they are empty for all other defences.

    Raises:
        RecordError: another run is writing the file, or the disk is full.
    """
    _check_ids(prompts)
    if not defences:
        raise ValueError(
            f"no defences to evaluate; give at least one, for example {{{BASELINE!r}: Undefended()}}"
        )
    keys = _keys(mllm, prompts, defences, settings=settings, seed=seed)
    with RecordStore(records) as store:
        _answer_missing(mllm, prompts, defences, keys, store, settings=settings, seed=seed, progress=progress)
        rows = [
            _row(prompt, name, store[keys[name][index]], judge)
            for name in defences
            for index, prompt in enumerate(prompts)
        ]
    frame = pd.DataFrame(rows)
    nullable = ["harmful", "correct", "raw_unsafe", "raw_refused", "triggered"]
    frame[nullable] = frame[nullable].astype("boolean")
    return frame.astype({"gate_score": "float64"})


def rates_by(frame: pd.DataFrame, columns: Sequence[str], *, measure: str = "unsafe") -> pd.DataFrame:
    """Rates of a yes-or-no column with Wilson's 95 % interval, by groups in order of appearance.

    Rows where the measure is not defined (`correct` without a reference) do not count.

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

    The test is McNemar's, on the same prompts under both; p_holm is adjusted for all comparisons in
    the table.

    Returns:
        The column `by`, then defence, measure, rate, low, high, n, change, gained, lost, p, p_holm.
        `gained` counts prompts that became true under the defence. The baseline's own p is NaN.
    """
    known = _defined(frame, measure)
    table = rates_by(known, [by, "defence"], measure=measure)
    tests = [
        _against_baseline(
            known[known[by] == row[by]], str(row["defence"]), measure=measure, baseline=baseline
        )
        for _, row in table.iterrows()
    ]
    table = table.join(pd.DataFrame(tests, index=table.index))
    return table.assign(p_holm=holm(table["p"].tolist()))


def costs(frame: pd.DataFrame, *, by: Sequence[str] = ("defence",)) -> pd.DataFrame:
    """Mean price of an answer over all its calls: seconds (which vary from run to run), calls, tokens."""
    columns = ["seconds", "model_calls", "prompt_tokens", "new_tokens"]
    return frame.groupby(list(by), sort=False)[columns].mean().reset_index()


def processor_fingerprint(mllm: MLLM) -> str:
    """Hash of picture settings and chat template as they are in memory now, which the files may not say."""
    processor = mllm.processor
    settings = [
        processor.to_json_string(),
        processor.chat_template,
        mllm.add_generation_prompt,
        len(mllm.tokenizer),
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _keys(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    *,
    settings: GenerationSettings,
    seed: int,
) -> dict[str, list[str]]:
    code, processor = code_version(), processor_fingerprint(mllm)
    fingerprints = [prompt.fingerprint for prompt in prompts]  # reads every picture: once, not once a defence
    return {
        name: [
            record_key(
                code=code, model=mllm.fingerprint, dtype=str(mllm.dtype), device=mllm.device.type, processor=processor,
                prompt=fingerprint, settings=settings, defence=defence.fingerprint, seed=seed,
            )
            for fingerprint in fingerprints
        ]
        for name, defence in defences.items()
    }  # fmt: skip


def _answer_missing(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    keys: Mapping[str, Sequence[str]],
    store: RecordStore,
    *,
    settings: GenerationSettings,
    seed: int,
    progress: bool,
) -> None:
    pending = [i for i in range(len(prompts)) if any(keys[name][i] not in store for name in defences)]
    missing = sum(key not in store for listed in keys.values() for key in listed)
    if not missing:
        return
    with tqdm(total=missing, desc="answers", unit="answer", disable=not progress) as bar:
        chosen = [prompts[i] for i in pending]
        for positions, encoded in batches(mllm, chosen, batch_size=settings.batch_size):
            for name, defence in defences.items():
                batch_keys = [keys[name][pending[position]] for position in positions]
                rows = [row for row, key in enumerate(batch_keys) if key not in store]
                if not rows:
                    continue
                bar.set_postfix_str(name, refresh=False)
                responses = _answer(mllm, encoded, rows, defence, settings=settings, seed=seed)
                # two prompts of one set may ask the same: they share a key, and one answer
                new = {batch_keys[row]: _record(answer) for row, answer in zip(rows, responses, strict=True)}
                store.extend(new.items())
                bar.update(len(rows))


def _answer(
    mllm: MLLM,
    encoded: Encoded,
    rows: Sequence[int],
    defence: Defence,
    *,
    settings: GenerationSettings,
    seed: int,
) -> list[Response]:
    if len(rows) < len(encoded.prompts):  # some of the batch is on record: another run had other batches
        encoded = encode(mllm, [encoded.prompts[row] for row in rows])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return defence.answer(mllm, encoded, settings=settings)


def _record(response: Response) -> dict[str, object]:
    return {name: getattr(response, name) for name in RECORDED}


def _row(prompt: Prompt, defence: str, record: Mapping[str, object], judge: Judge) -> dict[str, object]:
    answer = str(record["text"])
    verdict = judge(prompt, answer)
    raw = record["raw_text"]
    before = None if raw is None else judge(prompt, str(raw))
    return {
        "prompt_id": prompt.id, "surface": prompt.surface, "harmful": prompt.harmful, "defence": defence,
        "answer": answer, "unsafe": verdict.unsafe, "refused": verdict.refused,
        "correct": is_correct(prompt, answer), "detail": verdict.detail,
        "raw_answer": raw, "raw_unsafe": before and before.unsafe, "raw_refused": before and before.refused,
        **{name: record[name] for name in MEASURED},
    }  # fmt: skip


def _against_baseline(rows: pd.DataFrame, defence: str, *, measure: str, baseline: str) -> dict[str, float]:
    outcomes = {
        name: rows[rows["defence"] == name].set_index("prompt_id")[measure].astype(bool)
        for name in (baseline, defence)
    }
    before, after = outcomes[baseline], outcomes[defence]
    if before.empty or not before.index.sort_values().equals(after.index.sort_values()):
        raise ValueError(
            f"{defence} ({len(after)} prompts) and {baseline} ({len(before)}) were not measured on the same prompts; "
            f"a paired comparison needs both on each: evaluate them together"
        )
    if defence == baseline:
        return {"change": 0.0, "gained": 0, "lost": 0, "p": float("nan")}
    after = after.loc[before.index]
    test = mcnemar(before.tolist(), after.tolist())
    change = (test.gained - test.lost) / len(before)
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


def _check_ids(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise ValueError("no prompts to evaluate")
    seen: set[str] = set()
    for position, prompt in enumerate(prompts):
        if not prompt.id or prompt.id in seen:
            what = "has no id" if not prompt.id else f"has the id {prompt.id!r} of an earlier one"
            raise ValueError(f"prompt {position} {what}; ids tell rows apart, so give each prompt its own")
        seen.add(prompt.id)
