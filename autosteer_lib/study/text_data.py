"""What MARS is fitted on: texts in two disjoint sets, and neutral sights.

    texts       unsafe and safe, for the direction; others of each kind, for the layer's choice
    pictures    plain colours, with the words of the profile beside them
    clips       the same, moving nowhere

The organism's texts are drawn from the fit split, so things, sentences and colours of the tests are met in
none of them. From files they are JSON lines in <folder>/texts.jsonl, in the form of prompt_files.py, with
"group": "direction" or "validation" and "harmful": true or false. From published sets: benchmark_data.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autosteer_lib.neutral_sights import neutral_clips, neutral_pictures
from autosteer_lib.organism import prompt_sets
from autosteer_lib.profiles import Profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.benchmark_data import benchmark_texts
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.prompt_files import read_prompts
from autosteer_lib.text_sets import TextSets

_GROUPS = ("direction", "validation")


@dataclass(frozen=True, kw_only=True)
class TextData:
    """All that MARS is fitted on."""

    texts: TextSets
    pictures: tuple[Prompt, ...]
    clips: tuple[Prompt, ...]


def text_data(profile: Profile, *, root: Path, clips: bool = True) -> TextData:
    """The texts and neutral sights that a profile asks for; without clips, for a family that sees none."""
    mars, seed = profile.mars, profile.data.seed
    if profile.data.source == "benchmarks":
        texts = benchmark_texts(profile)
    else:
        texts = _from_world(profile) if profile.data.source == "organism" else _from_file(root, profile)
    words = _task_words(profile) if mars.neutral_words == "task" else list(mars.neutral_words)
    pictures = neutral_pictures(mars.neutral, words=words, side=mars.side, seed=seed)
    films = (
        neutral_clips(mars.neutral, words=words, side=mars.side, frames=mars.frames, seed=seed)
        if clips
        else ()
    )
    return TextData(texts=texts, pictures=tuple(pictures), clips=tuple(films))


def _from_world(profile: Profile) -> TextSets:
    count = profile.mars.texts
    unsafe, safe = prompt_sets.attack_pairs(
        "text", n=count + profile.mars.validation, split="fit", seed=profile.data.seed
    )
    met = {p.fingerprint for p in (*unsafe[:count], *safe[:count])}
    return TextSets(
        unsafe=tuple(unsafe[:count]),
        safe=tuple(safe[:count]),
        # Pairs are distinct, their sides need not be.
        validation_unsafe=tuple(p for p in unsafe[count:] if p.fingerprint not in met),
        validation_safe=tuple(p for p in safe[count:] if p.fingerprint not in met),
    )


def _task_words(profile: Profile) -> list[str]:
    """Sentences of requests about something in sight, as the fit split words them."""
    asked, _ = prompt_sets.attack_pairs(
        "image", n=min(profile.mars.neutral, 64), split="fit", seed=profile.data.seed
    )
    return [prompt.text for prompt in asked]


def _from_file(root: Path, profile: Profile) -> TextSets:
    prompts = read_prompts(root / str(profile.data.folder) / "texts.jsonl", groups=_GROUPS)
    if unlabelled := [repr(p.id) for p in prompts if p.harmful is None]:
        raise ValueError(
            f"texts.jsonl: {', '.join(unlabelled[:3])} ({len(unlabelled)} in all) do not say whether they are harmful, so "
            'they would be left out; write "harmful": true or false'
        )
    wanted = {"direction": profile.mars.texts, "validation": profile.mars.validation}

    def some(group: str, *, harmful: bool) -> tuple[Prompt, ...]:
        chosen = [p for p in prompts if group_of(p) == group and p.harmful is harmful]
        return tuple(chosen[: wanted[group]])

    sets = {
        "unsafe": some("direction", harmful=True),
        "safe": some("direction", harmful=False),
        "validation_unsafe": some("validation", harmful=True),
        "validation_safe": some("validation", harmful=False),
    }
    try:
        return TextSets(**sets)
    except ValueError as error:
        raise ValueError(f"texts.jsonl: {error}") from None
