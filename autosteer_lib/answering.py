"""Making the answers that are not on record yet, so that a run survives what can happen to it.

    killed, interrupted     what has a line in the records is not made again; the same command goes on
    out of memory           the batch is halved, and later ones are no larger (halving.py)
    one row's fault         it is recorded with its error, under a key of its own ("<key> failed 1"), stands in the
                            table as failed, and the next run tries it again
    not the rows' fault     under a defence that has answered nothing, three batches in vain stop the run

Who makes them, here or elsewhere, is an `Answerer` (answerers.py); this process alone plans the batches and writes.

Batches depend on which answers are still missing and on what fitted, so an interrupted run in half precision can,
in rare cases of near-equal logits, choose another token than an uninterrupted one; in float32 it was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from tqdm.auto import tqdm

from autosteer_lib.answerers import Answered, Answerer, Batch
from autosteer_lib.defences.base import Defence
from autosteer_lib.encoding import batch_rows
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.halving import Failure
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.shards import Shards

# What a record keeps of a Response; prompt_id is the reader's, the key does not depend on it.
MEASURED = ("gate_score", "triggered", "new_tokens", "prompt_tokens", "model_calls", "seconds")
RECORDED = ("prompt_id", "text", "raw_text", *MEASURED)
# Batches in a row under a defence that has answered nothing: more would only fail as well.
PATIENCE = 3


def answer_missing(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    keys: Mapping[str, Sequence[str]],
    store: Shards,
    *,
    settings: GenerationSettings,
    seed: int,
    progress: bool,
    answerer: Answerer,
) -> None:
    """Answer what has no record, and record it, a batch at a time.

    Args:
        mllm: the model.
        prompts: all of the run.
        defences: name → fitted defence.
        keys: of each answer, by defence and in the prompts' order.
        store: what is on record; grows.
        settings: length of the answers and size of the batches.
        seed: of torch, before each batch.
        progress: show a bar.
        answerer: makes the answers.

    Raises:
        RecordError: the disk is full.
        RuntimeError: nothing can be answered under one of the defences; says why.
    """
    plan = _planned(mllm, prompts, keys, store, batch_size=settings.batch_size)
    if not plan:
        return
    trials = {name: _Trial(name, proven=any(key in store for key in listed)) for name, listed in keys.items()}
    work = answerer.answered(mllm, [task.batch for task in plan], defences, settings=settings, seed=seed)
    total = sum(len(rows) for task in plan for rows in task.batch.missing.values())
    with tqdm(total=total, desc="answers", unit="answer", disable=not progress) as bar, closing(work):
        for part in work:
            bar.set_postfix_str(part.defence, refresh=False)
            store.extend(_records(plan[part.number], part, store).items())
            bar.update(len(part.outcomes))
            trials[part.defence].saw(part)
    for trial in trials.values():
        trial.check(over=True)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A batch, and under which keys its answers are recorded."""

    batch: Batch
    keys: Mapping[str, tuple[str, ...]]
    """Of every row, by defence."""


def _planned(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    keys: Mapping[str, Sequence[str]],
    store: Shards,
    *,
    batch_size: int,
) -> list[_Task]:
    """What is missing, in batches. Two prompts may ask the same: they share a key, and the earlier batch answers it."""
    pending = [i for i in range(len(prompts)) if any(listed[i] not in store for listed in keys.values())]
    chosen, planned, plan = [prompts[i] for i in pending], set[str](), list[_Task]()
    for positions in batch_rows(mllm, chosen, batch_size=batch_size):
        of_rows = {
            name: tuple(listed[pending[position]] for position in positions) for name, listed in keys.items()
        }
        missing: dict[str, tuple[int, ...]] = {}
        for name, row_keys in of_rows.items():
            rows = tuple(row for row, key in enumerate(row_keys) if key not in store and key not in planned)
            planned.update(row_keys[row] for row in rows)  # also for a second defence that is the same
            if rows:
                missing[name] = rows
        if missing:
            batch = Batch(prompts=tuple(chosen[position] for position in positions), missing=missing)
            plan.append(_Task(batch=batch, keys=of_rows))
    return plan


def _records(task: _Task, part: Answered, store: Shards) -> dict[str, dict[str, object]]:
    """Key → record. Two rows of one batch may share a key, and then an answer."""
    new: dict[str, dict[str, object]] = {}
    for outcome in part.outcomes:
        key = task.keys[part.defence][outcome.row]
        if isinstance(outcome.result, Failure):
            prompt_id = task.batch.prompts[outcome.row].id
            new[_attempt(store, key)] = {
                "failed": True, "prompt_id": prompt_id, "error": outcome.result.error,
            }  # fmt: skip
        else:
            new[key] = {field: getattr(outcome.result, field) for field in RECORDED}
    return new


class _Trial:
    """Whether a defence has answered anything yet."""

    def __init__(self, name: str, *, proven: bool) -> None:
        self.name, self.proven = name, proven
        self._in_vain: list[Failure] = []

    def saw(self, part: Answered) -> None:
        failed = [outcome.result for outcome in part.outcomes if isinstance(outcome.result, Failure)]
        self.proven = self.proven or len(failed) < len(part.outcomes)
        self._in_vain += failed[:1]
        self.check()

    def check(self, *, over: bool = False) -> None:
        """Stop a run under which nothing can be answered, before it has failed at everything."""
        if self.proven or not self._in_vain or (len(self._in_vain) < PATIENCE and not over):
            return
        raise RuntimeError(
            f"nothing could be answered under {self.name!r}, so the fault is no single prompt's: {self._in_vain[0].error}"
        )


def _attempt(store: Shards, key: str) -> str:
    """The key of a failure, one for each attempt: records are never overwritten."""
    attempt = 1
    while f"{key} failed {attempt}" in store:
        attempt += 1
    return f"{key} failed {attempt}"


def last_failure(store: Shards, key: str) -> dict[str, object]:
    """What the latest attempt at an answer without a record ended in."""
    attempt = 1
    while f"{key} failed {attempt + 1}" in store:
        attempt += 1
    return store[f"{key} failed {attempt}"]
