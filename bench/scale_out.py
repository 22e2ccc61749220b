"""Answers a second from two Ray actors against one, for a model that uses one core.

    ratio = seconds(one actor) / seconds(two actors),   both for the same batches, prompts sent and answers received

Both are counted from the moment when the actors have the model loaded, as in a long run. The model is saved to a folder
first, because an actor loads what it answers with; no answer ends early, so all batches cost the same. On a machine
with other work beside this one the cores that two actors get are not two: the ratio is then a lower bound.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from autosteer_lib.answerers import Answered, Batch, OneByOne
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM, load
from autosteer_lib.scale_out.cluster import Cluster
from autosteer_lib.scale_out.on_ray import OnRay
from bench.harness import Check, Measure, Result, Settings, Target, alternate, ratios
from bench.subjects import medium

BATCHES, ROWS, TOKENS, ROUNDS = 24, 8, 32, 6
_QUICK_BATCHES, _QUICK_ROWS, _QUICK_TOKENS, _QUICK_ROUNDS = 4, 2, 4, 2
CORES = 2
TARGET = Target(kind="at_least", bound=1.6, words="two actors on two cores answer at ≥ 1.6 × the rate of one")


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The same batches for both sides."""

    mllm: MLLM
    batches: Sequence[Batch]
    settings: GenerationSettings

    def answered_by(self, answerer: OnRay | OneByOne) -> dict[int, list[str]]:
        parts: list[Answered] = list(
            answerer.answered(
                self.mllm, self.batches, {"Orig.": Undefended()}, settings=self.settings, seed=0
            )
        )
        return {
            part.number: [getattr(outcome.result, "text", "failed") for outcome in part.outcomes]
            for part in parts
        }


def run(settings: Settings) -> Result:
    """One measure: the model of the other benches whose step is mostly arithmetic, on the CPU."""
    if find_spec("ray") is None:
        return Result(bench="scale_out", skipped="the extra `ray` is not installed")
    if (psutil.cpu_count(logical=False) or 1) < CORES and not settings.quick:
        return Result(bench="scale_out", skipped=f"two actors need {CORES} cores to be faster than one")
    import ray
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # an actor takes as many as this process has
    # One core more than there is to hand out: the single actor and the pair are never at work at the same time.
    ray.init(
        address="local",
        num_cpus=CORES + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(_work(settings, Path(folder)), settings)
    finally:
        ray.shutdown()
        torch.set_num_threads(threads)


def _work(settings: Settings, folder: Path) -> _Work:
    subject = medium(settings)
    subject.mllm.model.save_pretrained(folder)
    subject.mllm.processor.save_pretrained(folder)
    count, rows, tokens = (
        (_QUICK_BATCHES, _QUICK_ROWS, _QUICK_TOKENS) if settings.quick else (BATCHES, ROWS, TOKENS)
    )
    batch = Batch(prompts=subject.prompts[:rows], missing={"Orig.": tuple(range(rows))})
    return _Work(
        mllm=load(folder, device="cpu"),
        batches=[batch] * count,
        settings=GenerationSettings(max_new_tokens=tokens, batch_size=rows),
    )


def _measured(work: _Work, settings: Settings) -> Result:
    one, two = OnRay(Cluster(actors=1)), OnRay(Cluster(actors=2))
    try:
        seconds = alternate(
            {"one actor": lambda: work.answered_by(one), "two actors": lambda: work.answered_by(two)},
            rounds=_QUICK_ROUNDS if settings.quick else ROUNDS,
        )
        here, there = work.answered_by(OneByOne()), work.answered_by(two)
    finally:
        one.close()
        two.close()
    measure = Measure(
        name=f"{work.mllm.layers} blocks × {work.mllm.dim}, {len(work.batches)} batches of {work.settings.batch_size}",
        is_="seconds of one actor / seconds of two actors",
        values=ratios(seconds["one actor"], seconds["two actors"]),
        samples=seconds,
        target=TARGET,
        judged=not settings.quick,
        details={
            "batches": len(work.batches),
            "rows": work.settings.batch_size,
            "new_tokens": work.settings.max_new_tokens,
            "blocks": work.mllm.layers,
            "dim": work.mllm.dim,
            "threads_an_actor": 1,
        },
    )
    unlike = sum(here[number] != there[number] for number in here)
    equal = Check(
        name="answers from actors are those of one process",
        difference_is="batches whose words differ",
        difference=unlike,
        allowed=0,
    )
    return Result(bench="scale_out", measures=(measure,), checks=(equal,))
