"""What the comparison of all defences needs besides: prompts to choose settings by, texts that get through, answers.

    validation   attacks with harm in sight and in words, and their harmless twins: every method's settings are chosen
                 on these, and nothing is fitted on them or tested on them
    texts        MARS' texts with role-plays among them: unsafe texts of which some are refused and some are not
    exchanges    prompts whose answers the answer detector learns on

All of it is of the fit split. From files, validation.jsonl lies beside the others, with "group": "attack" or "benign";
role-plays are then among texts.jsonl. From published sets: benchmark_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autosteer_lib.organism import prompt_sets
from autosteer_lib.organism.prompt_sets import Attack
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import repository_root
from autosteer_lib.study.benchmark_data import benchmark_settings
from autosteer_lib.study.outcome import first_of_each_set
from autosteer_lib.study.own_files import VALIDATION, validation_prompts
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study
from autosteer_lib.text_sets import TextSets

IN_SIGHT: tuple[Attack, ...] = ("image", "video")
IN_WORDS: tuple[Attack, ...] = ("words", "jailbreak")


@dataclass(frozen=True, kw_only=True)
class ComparedData:
    """Prompts of the fit split, by use."""

    validation: tuple[Prompt, ...]
    texts: TextSets
    exchanges: tuple[Prompt, ...]


def compared_data(study: Study) -> ComparedData:
    """The prompts that a study's profile asks for."""
    texts = _with_role_plays(study) if study.profile.data.source == "organism" else study.text_data.texts
    pairs, plain = study.data.pairs, study.text_data.texts
    exchanges = (*pairs.toxic, *pairs.safe, *plain.unsafe, *plain.safe)
    probed = study.probe_sets
    met = (
        *exchanges,
        *study.data.refusals,
        *all_texts(texts),
        *probed.attacks,
        *probed.harmless,
        *study.data.tests,
    )
    validation = _validation(study, met)
    missing = {"attack", "benign"} - {group_of(p) for p in validation}
    if missing:
        raise ValueError(
            f"settings are chosen on validation prompts, and of {' and '.join(sorted(missing))} none is left that no "
            "defence was fitted on and no test asks; give others ([data.sets] settings_attacks, settings_benign, or "
            "validation.jsonl)"
        )
    return ComparedData(validation=validation, texts=texts, exchanges=exchanges)


def _validation(study: Study, met: Sequence[Prompt]) -> tuple[Prompt, ...]:
    count, data = study.profile.compared.validation, study.profile.data
    if data.source == "benchmarks":
        listed = benchmark_settings(study.profile)
        known = _known(listed, met)
        return tuple(p for p in listed if p.fingerprint not in known)
    if data.source == "files":
        prompts = validation_prompts(study.profile, root=repository_root())
        known = _known(prompts, met)
        if found := [p.id for p in prompts if p.fingerprint in known]:
            raise ValueError(
                f"{VALIDATION} holds {', '.join(map(repr, found[:3]))} ({len(found)} in all), on which defences are fitted "
                "or tested; settings would be chosen on training or test prompts: leave them out of one"
            )
        return tuple(first_of_each_set(prompts, count))
    chosen: list[Prompt] = []
    for surface in prompt_sets.shown_to((*IN_SIGHT, *IN_WORDS), clips=study.mllm.sees_videos):
        # A stream of its own, and more pairs than needed: the world's texts are few enough to come up twice.
        drawn = prompt_sets.attack_pairs(surface, n=2 * count, split="fit", seed=data.seed + 1)
        known = _known((*drawn[0], *drawn[1]), met)
        fresh = [pair for pair in zip(*drawn, strict=True) if not {p.fingerprint for p in pair} & known]
        if len(fresh) < count:
            raise ValueError(
                f"{len(fresh)} of {2 * count} {surface} pairs are in no fit, and [compared] validation = {count} are "
                "asked for; ask for fewer, or fit on fewer"
            )
        for pair in fresh[:count]:
            chosen += pair
    return tuple(chosen)


def _known(prompts: Sequence[Prompt], met: Sequence[Prompt]) -> set[str]:
    """Fingerprints of what was met; pictures and films are read of those alone that share their words with a prompt."""
    words = {p.text for p in prompts}
    return {p.fingerprint for p in met if p.text in words}


def _with_role_plays(study: Study) -> TextSets:
    texts, count = study.text_data.texts, study.profile.compared.role_plays
    unsafe, safe = prompt_sets.attack_pairs("jailbreak", n=count, split="fit", seed=study.profile.data.seed)
    half = count // 2
    met = {p.fingerprint for p in (*unsafe[:half], *safe[:half])}
    return TextSets(
        unsafe=(*texts.unsafe, *unsafe[:half]),
        safe=(*texts.safe, *safe[:half]),
        validation_unsafe=(*texts.validation_unsafe, *_others(unsafe[half:], met)),
        validation_safe=(*texts.validation_safe, *_others(safe[half:], met)),
    )


def _others(prompts: Sequence[Prompt], met: set[str]) -> list[Prompt]:
    return [p for p in prompts if p.fingerprint not in met]


def all_texts(texts: TextSets) -> tuple[Prompt, ...]:
    """Those for the fit and those held out for a choice."""
    return (*texts.unsafe, *texts.safe, *texts.validation_unsafe, *texts.validation_safe)


def validation_sizes(prompts: Sequence[Prompt]) -> dict[str, int]:
    """How many prompts of each group and surface there are."""
    sizes: dict[str, int] = {}
    for prompt in prompts:
        name = f"{group_of(prompt)}/{prompt.surface}"
        sizes[name] = sizes.get(name, 0) + 1
    return sizes
