"""Making the answers that are not on record yet, so that a run survives what can happen to it.

    killed, interrupted     what has a line in the records is not made again; the same command goes on
    out of memory           the batch is halved, and later ones are no larger (halving.py)
    one row's fault         it is recorded with its error, under a key of its own ("<key> failed 1"), stands in the
                            table as failed, and the next run tries it again
    not the rows' fault     under a defence that has answered nothing, three batches in vain stop the run

Batches depend on which answers are still missing and on what fitted, so an interrupted run in half precision can,
in rare cases of near-equal logits, choose another token than an uninterrupted one; in float32 it was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tqdm.auto import tqdm

from autosteer_lib.defences.base import Defence
from autosteer_lib.encoding import Encoded, batch_rows, encode
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.halving import Failure, Halving
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

    Raises:
        RecordError: the disk is full.
        RuntimeError: nothing can be answered under one of the defences; says why.
    """
    pending = [i for i in range(len(prompts)) if any(keys[name][i] not in store for name in defences)]
    missing = sum(key not in store for listed in keys.values() for key in listed)
    if not missing:
        return
    runs = {
        name: _Run(name, defence, proven=any(key in store for key in keys[name]))
        for name, defence in defences.items()
    }
    with tqdm(total=missing, desc="answers", unit="answer", disable=not progress) as bar:
        chosen = [prompts[i] for i in pending]
        for positions in batch_rows(mllm, chosen, batch_size=settings.batch_size):
            batch = _Batch(mllm, [chosen[position] for position in positions], settings, seed)
            for name, run in runs.items():
                batch_keys = [keys[name][pending[position]] for position in positions]
                rows = [row for row, key in enumerate(batch_keys) if key not in store]
                if not rows:
                    continue
                bar.set_postfix_str(name, refresh=False)
                # two prompts of one set may ask the same: they share a key, and one answer
                new = {}
                for row, result in run.answers(batch, rows).items():
                    if isinstance(result, Failure):
                        new[_attempt(store, batch_keys[row])] = {
                            "failed": True, "prompt_id": batch.prompts[row].id, "error": result.error,
                        }  # fmt: skip
                    else:
                        new[batch_keys[row]] = {field: getattr(result, field) for field in RECORDED}
                store.extend(new.items())
                bar.update(len(rows))
                run.check()
    for run in runs.values():
        run.check(over=True)


class _Batch:
    """Prompts of like kind and length, encoded once for all defences that answer them whole."""

    def __init__(
        self, mllm: MLLM, prompts: Sequence[Prompt], settings: GenerationSettings, seed: int
    ) -> None:
        self.prompts = prompts
        self._mllm, self._settings, self._seed = mllm, settings, seed
        self._whole: Encoded | None = None

    def answer(self, defence: Defence, rows: Sequence[int]) -> list[Response]:
        """Answer some rows: all of them, or those that are not on record, or a half."""
        if len(rows) < len(self.prompts):
            encoded = encode(self._mllm, [self.prompts[row] for row in rows])
        else:
            encoded = self._whole = self._whole or encode(self._mllm, self.prompts)
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            return defence.answer(self._mllm, encoded, settings=self._settings)

    def release(self) -> None:
        """Forget the encoded batch, which holds memory that its halves need."""
        self._whole = None


class _Run:
    """One defence's way through the batches, and whether it has answered anything yet."""

    def __init__(self, name: str, defence: Defence, *, proven: bool) -> None:
        self.name, self.defence, self.proven = name, defence, proven
        self._halving = Halving()
        self._in_vain: list[Failure] = []

    def answers(self, batch: _Batch, rows: Sequence[int]) -> dict[int, Response | Failure]:
        def run(part: list[int]) -> list[Response]:
            if len(part) < len(rows):
                batch.release()
            return batch.answer(self.defence, part)

        found = {outcome.row: outcome.result for outcome in self._halving(run, rows)}
        failed = [result for result in found.values() if isinstance(result, Failure)]
        self.proven = self.proven or len(failed) < len(found)
        self._in_vain += failed[:1]
        return found

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
