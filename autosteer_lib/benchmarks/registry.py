"""The registry: every benchmark that a profile can name.

Sets are grouped by where harm lies, each beside the functions that assemble its prompts:

    harm_in_words    HarmBench, JailbreakBench, AdvBench, StrongREJECT, XSTest, MaliciousInstruct, Alpaca
    autosteer_sets   VLSafe, ToViLaG+
    harm_in_sight    FigStep, MM-SafetyBench, HADES, JailBreakV; Video-SafetyBench
    harm_in_both     VLGuard, SPA-VL, MSSBench, SIUO, MOSSBench: picture and words decide together
    usefulness       RealWorldQA, MMMU, MMMU-Pro, MM-Vet, POPE, MVBench
"""

from __future__ import annotations

from autosteer_lib.benchmarks import autosteer_sets, harm_in_both, harm_in_sight, harm_in_words, usefulness
from autosteer_lib.benchmarks.entry import Benchmark, Group, Part
from autosteer_lib.profiles import did_you_mean

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *harm_in_words.SETS,
        *autosteer_sets.SETS,
        *harm_in_sight.SETS,
        *harm_in_both.SETS,
        *usefulness.SETS,
    )
}

ROLES: dict[str, Group] = {
    "pairs": "pair",
    "refusals": "refusal",
    "attacks": "attack",
    "benign": "benign",
    "borderline": "borderline",
    "utility": "utility",
    "text_unsafe": "attack",
    "text_safe": "benign",
    "validation_unsafe": "attack",
    "validation_safe": "benign",
    "probe_image": "attack",
    "probe_text": "attack",
    "probe_other": "attack",
    "probe_harmless": "utility",
    "settings_attacks": "attack",
    "settings_benign": "benign",
}
"""What a profile's [data.sets] lists sets for → the group of prompts that it takes of them."""


def find_parts(name: str, *, group: Group | None = None) -> list[tuple[Benchmark, Part]]:
    """The parts that a name stands for: those of one surface, or else all of a set.

    Raises:
        ValueError: no such set or surface, or it has no prompts of this group; says what there is.
    """
    benchmark = BENCHMARKS.get(name.split("/")[0])
    exact = [] if benchmark is None else [part for part in benchmark.parts if part.surface == name]
    parts = exact or ([] if benchmark is None or benchmark.name != name else list(benchmark.parts))
    if benchmark is None or not parts:
        raise ValueError(f"no benchmark {name!r}: {did_you_mean(name, surfaces())}")
    fitting = [part for part in parts if group is None or part.group == group]
    if not fitting:
        there = ", ".join(f"{part.surface} ({part.group})" for part in benchmark.parts)
        raise ValueError(f"{name!r} has no prompts of the group {group!r}; {benchmark.title} has {there}")
    return [(benchmark, part) for part in fitting]


def surfaces() -> list[str]:
    """Every name that `find_parts` knows."""
    parts = [part.surface for benchmark in BENCHMARKS.values() for part in benchmark.parts]
    return sorted({*BENCHMARKS, *parts})
