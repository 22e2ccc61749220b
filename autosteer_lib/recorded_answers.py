"""Answers by what they depend on: read where there is a record, made and recorded where there is none.

key = SHA-256(code, model, precision, device, processor, prompt, settings, defence, seed)      (records.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autosteer_lib.answerers import Answerer
from autosteer_lib.answering import answer_missing, last_failure
from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM
from autosteer_lib.processor_settings import processor_fingerprint
from autosteer_lib.prompts import Prompt
from autosteer_lib.records import code_version, record_key
from autosteer_lib.shards import Shards


def recorded_answers(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    defences: Mapping[str, Defence],
    *,
    settings: GenerationSettings,
    records: Path,
    seed: int = 0,
    progress: bool,
    answerer: Answerer,
) -> dict[str, list[Mapping[str, object]]]:
    """The records of every prompt under every defence.

    Args:
        mllm: the model.
        prompts: ids may repeat; an answer is known by what was asked.
        defences: name → fitted defence.
        settings: length of the answers and size of the batches.
        records: the folder of answers, made if it does not exist.
        seed: part of each key, and the seed of torch before each batch.
        progress: show a bar.
        answerer: makes what is missing.

    Returns:
        Defence → one record a prompt, in the prompts' order: `answering.RECORDED`, or `error` of what failed.

    Raises:
        RecordError: a record file is damaged, or the disk is full.
        RuntimeError: nothing could be answered under one of the defences; says why.
    """
    keys = _keys(mllm, prompts, defences, settings=settings, seed=seed)
    with Shards(records) as store:
        answer_missing(
            mllm, prompts, defences, keys, store, settings=settings, seed=seed, progress=progress, answerer=answerer
        )  # fmt: skip
        return {
            name: [store[key] if key in store else last_failure(store, key) for key in keys[name]]
            for name in defences
        }


@dataclass(frozen=True, kw_only=True)
class OwnAnswersOnRecord:
    """`OwnAnswers` that are kept among a run's records, for fits that ask for the same ones."""

    records: Path
    answerer: Answerer

    def __call__(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[str]:
        """One answer a prompt, in the prompts' order.

        Raises:
            RuntimeError: a prompt cannot be answered; a fit cannot go on without it.
        """
        (found,) = recorded_answers(
            mllm, prompts, {"the undefended model": Undefended()}, settings=settings, records=self.records,
            progress=progress, answerer=self.answerer,
        ).values()  # fmt: skip
        for prompt, record in zip(prompts, found, strict=True):
            if "text" not in record:
                raise RuntimeError(
                    f"{mllm.name} could not answer prompt {prompt.id!r} ({record['error']}), which a defence is fitted on; "
                    "running again tries it again. If it fails again, leave that prompt out"
                )
        return [str(record["text"]) for record in found]


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
