"""Reading the last token's state at every layer: how much slower than a plain prefill, and how much memory?

    rate     seconds(plain batched prefill) / seconds(collect, all layers)              target: at least 0.9
    memory   does what reading adds grow with the prompt? (reading_memory.py)           target: at most 0.05

Both sides encode the prompts, in the same batches.
"""

from collections.abc import Sequence

from autosteer_lib.activations import collect
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from bench.harness import Measure, Result, Settings, Target, compare
from bench.memory import in_fresh_process
from bench.reading_memory import all_layers, cpu_peaks, growth, plain_prefill
from bench.subjects import medium, shipped

TARGET = Target(kind="at_least", bound=0.9, words="at least 0.9 of a plain prefill's rate")
BATCH = 16
LENGTHS = (64, 256, 768)  # words of a prompt


def run(settings: Settings) -> Result:
    """Rate on both models; memory on the medium one, in a process of its own."""
    measures = [
        rate(
            subject.name,
            subject.mllm,
            subject.prompts[: 4 if settings.quick else count],
            batch_size=BATCH,
            rounds=2 if settings.quick else rounds,
            settings=settings,
        )
        for subject, count, rounds in (
            (shipped(settings), 64, 30),
            (medium(settings, pictures=True), 32, 10),
        )
    ]
    if settings.quick:  # here, which saves the start of an interpreter
        taken = cpu_peaks(tiny=True, lengths=[16, 400], rows=8, rounds=1, seed=settings.seed)
    else:
        taken = in_fresh_process(cpu_peaks, tiny=False, lengths=LENGTHS, rows=8, rounds=3, seed=settings.seed)
    return Result(bench="collect_states", measures=(*measures, growth(taken, settings=settings)))


def rate(
    name: str, mllm: MLLM, some: Sequence[Prompt], *, batch_size: int, rounds: int, settings: Settings
) -> Measure:
    """Prompts a second of collect, as a share of those of a plain prefill."""
    sites = all_layers(mllm)
    return compare(
        f"rate on {name}, {len(some)} prompts",
        {
            "plain prefill": lambda: plain_prefill(mllm, some, batch_size=batch_size),
            "collect": lambda: collect(mllm, some, sites=sites, batch_size=batch_size),
        },
        rounds=rounds,
        settings=settings,
        target=TARGET,
        details={"sites": len(sites), "prompts": len(some), "batch_size": batch_size},
    )
