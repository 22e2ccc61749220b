"""Answers on disk: how many records a second, opened, keyed, appended and synced.

    one by one    record_key and one append an answer: the file is whole after each
    by batches    record_key and one extend for 64 answers, as `evaluate` does

The rate is of this machine and is the one figure here that is no ratio; the plain write of the same
lines without keys or checks stands beside it.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autosteer_lib.records import RecordStore, record_key
from bench.harness import Measure, Result, Settings, Target, alternate

TARGET = Target(kind="at_least", bound=10_000, words="at least 10,000 records a second")
BATCH = 64
ANSWER: dict[str, Any] = {
    "prompt_id": "words/17", "surface": "words", "harmful": True, "defence": "AutoSteer",
    "answer": "sorry , i cannot help with that .", "unsafe": False, "refused": True, "correct": None,
    "gate_score": 0.987654321, "triggered": True, "new_tokens": 9, "prompt_tokens": 21, "seconds": 0.0123456789,
}  # fmt: skip


def run(settings: Settings) -> Result:
    """Both ways of writing, and the plain file."""
    count, rounds = (128, 2) if settings.quick else (20_000, 15)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        seconds = alternate(
            {
                "one by one": lambda: write(path, count=count, batch=1),
                "by batches": lambda: write(path, count=count, batch=BATCH),
                "plain file": lambda: write_plain(path, count=count),
            },
            rounds=rounds,
        )
    return Result(
        bench="records",
        measures=tuple(
            Measure(
                name=f"{side}, {count:,} records",
                is_="records per second",
                values=tuple(count / sample for sample in samples),
                samples={side: samples},
                target=None if side == "plain file" else TARGET,
                judged=not settings.quick,
            )
            for side, samples in seconds.items()
        ),
    )


def write(path: Path, *, count: int, batch: int) -> None:
    """A new file of `count` records, synced when it closes."""
    path.unlink(missing_ok=True)
    with RecordStore(path) as store:
        for start in range(0, count, batch):
            numbers = range(start, min(start + batch, count))
            store.extend([(_key(number), ANSWER) for number in numbers])


def write_plain(path: Path, *, count: int) -> None:
    """The same lines, without key, lock, check or sync."""
    path.unlink(missing_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"key": str(number), **ANSWER}) + "\n")
            file.flush()


def _key(number: int) -> str:
    return record_key(
        code="c" * 64, model="m" * 64, dtype="float32", device="cpu", processor="p" * 64, prompt=f"{number:064}",
        settings={"max_new_tokens": 24, "batch_size": 64}, defence="d" * 64, seed=0,
    )  # fmt: skip
