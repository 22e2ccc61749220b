"""What SafeSteer is fitted on: attacks of four kinds and harmless prompts, in the paper's mixture (§3.1).

    kind             in the paper                                      in the organism's fit split
    image_attacks    MM-SafetyBench's SD: harm in a drawn picture      image
    text_attacks     CB: the question in words, over a blank picture   text, over nothing or over a plain picture
    other_attacks    TYPO; SD + TYPO                                   typographic; both (harm in words and picture)
    harmless         MM-Vet: questions and requests about pictures     naming, colour, counting; twins of image, words

CB is where a model's alignment is to be met. The organism's alignment holds for words alone and not over a picture,
plain or not, so its profile takes words alone; both are measured (`other_sets`).

Things, colours and requests of the tests are met in none of them; the questions naming, colour and counting are worded
alike in both splits. No clip is among them: clips are what is transferred to.

From files they are JSON lines in <folder>/probe.jsonl, in the form of prompt_files.py, with "group": "image", "text",
"other" or "harmless". Attacks need "harmful": true there. From published sets: benchmark_data.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from autosteer_lib.neutral_sights import neutral_pictures
from autosteer_lib.organism import prompt_sets
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.profiles import Profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.benchmark_data import benchmark_probe
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.prompt_files import read_prompts

Beside: TypeAlias = Literal["nothing", "plain"]

QUESTIONS: tuple[prompt_sets.Utility, ...] = ("naming", "colour", "counting")
REQUESTS: tuple[prompt_sets.Attack, ...] = ("image", "words")  # their twins: the same requests, harmless
_GROUPS = ("image", "text", "other", "harmless")


def probe_data(profile: Profile, *, root: Path) -> ProbeSets:
    """The sets that a profile asks for."""
    if profile.data.source == "organism":
        return _from_world(profile)
    if profile.data.source == "files":
        return _from_file(root, profile)
    sets = benchmark_probe(profile)
    words = _beside(sets.text_attacks, profile.safesteer.beside_words, profile=profile)
    return replace(sets, text_attacks=words)


def other_sets(profile: Profile, sets: ProbeSets) -> dict[str, ProbeSets]:
    """The same sets with one thing changed that the paper, or the organism, leaves open."""
    beside: Beside = "plain" if profile.safesteer.beside_words == "nothing" else "nothing"
    words = _beside(sets.text_attacks, beside, profile=profile)
    found = {f"text attacks: {beside} beside the words": replace(sets, text_attacks=words)}
    if profile.data.source == "organism":
        asked = _questions(profile, len(sets.harmless))
        found["harmless: questions alone"] = replace(sets, harmless=asked)
    return found


def _from_world(profile: Profile) -> ProbeSets:
    wanted = profile.safesteer

    def attacks(kind: prompt_sets.Attack, count: int) -> tuple[Prompt, ...]:
        return tuple(prompt_sets.attack_pairs(kind, n=count, split="fit", seed=profile.data.seed)[0])

    written, asked = wanted.other_attacks // 2, wanted.harmless // 2
    return ProbeSets(
        image_attacks=attacks("image", wanted.image_attacks),
        text_attacks=_beside(attacks("text", wanted.text_attacks), wanted.beside_words, profile=profile),
        other_attacks=(*attacks("typographic", written), *attacks("both", wanted.other_attacks - written)),
        harmless=(*_questions(profile, asked), *_requests(profile, wanted.harmless - asked)),
    )


def _questions(profile: Profile, count: int) -> tuple[Prompt, ...]:
    return tuple(
        prompt
        for kind, share in zip(QUESTIONS, _shares(count, len(QUESTIONS)), strict=True)
        for prompt in prompt_sets.utility(kind, n=share, split="fit", seed=profile.data.seed)
    )


def _requests(profile: Profile, count: int) -> tuple[Prompt, ...]:
    return tuple(
        twin
        for kind, share in zip(REQUESTS, _shares(count, len(REQUESTS)), strict=True)
        for twin in prompt_sets.attack_pairs(kind, n=share, split="fit", seed=profile.data.seed)[1]
    )


def _shares(count: int, parts: int) -> list[int]:
    return [(count + parts - 1 - part) // parts for part in range(parts)]


def _beside(words: tuple[Prompt, ...], beside: Beside, *, profile: Profile) -> tuple[Prompt, ...]:
    if beside == "nothing":
        return tuple(replace(prompt, images=()) for prompt in words)
    count = max(len(words), 1)
    pictures = neutral_pictures(count, words=["plain"], side=profile.mars.side, seed=profile.data.seed)
    return tuple(
        replace(prompt, images=picture.images) for prompt, picture in zip(words, pictures, strict=False)
    )


def _from_file(root: Path, profile: Profile) -> ProbeSets:
    prompts = read_prompts(root / str(profile.data.folder) / "probe.jsonl", groups=_GROUPS)
    wanted = profile.safesteer

    def some(group: str, count: int) -> tuple[Prompt, ...]:
        return tuple([p for p in prompts if group_of(p) == group][:count])

    return ProbeSets(
        image_attacks=some("image", wanted.image_attacks),
        text_attacks=_beside(some("text", wanted.text_attacks), wanted.beside_words, profile=profile),
        other_attacks=some("other", wanted.other_attacks),
        harmless=some("harmless", wanted.harmless),
    )
