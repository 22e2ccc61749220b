"""The prompts of a study: what is fitted on, and what is tested on, never the same.

    pairs      contrast pairs for SAS and prober (held-out pairs, which choose epochs, are among them)
    refusals   toxic prompts for the Refusal Head: the pairs' toxic sides and toxic pictures
    tests      attacks, their harmless twins, borderline prompts, utility

From the organism's world they are drawn by seed; from files they are read as JSON lines (prompt_files.py), in
<folder>/pairs.jsonl, refusals.jsonl and tests.jsonl; from published sets, see benchmark_data.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from autosteer_lib.organism import prompt_sets
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.profiles import Profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.benchmark_data import benchmark_prompts
from autosteer_lib.study.prompt_files import read_prompts

Group = Literal["attack", "benign", "borderline", "utility"]
_TOXIC_PICTURES = 0.25  # of the refusal prompts: 1,000 beside 3,000 in AutoSteer's code


@dataclass(frozen=True, kw_only=True)
class PromptData:
    """All prompts of one study."""

    pairs: ContrastPairs
    refusals: tuple[Prompt, ...]
    tests: tuple[Prompt, ...]
    left_out: tuple[str, ...] = ()
    """One sentence a published test set that is not on this machine (which, why, and what to do) or not to be seen."""

    def test(self, *, group: Group | None = None, surface: str | None = None) -> list[Prompt]:
        """Test prompts of a group and surface; None takes all.

        Raises:
            ValueError: there are none; the message lists what there is.
        """
        chosen = [
            p
            for p in self.tests
            if (group is None or group_of(p) == group) and (surface is None or p.surface == surface)
        ]
        if not chosen:
            have = sorted({f"{group_of(p)}/{p.surface}" for p in self.tests})
            raise ValueError(
                f"no test prompts of group {group!r} and surface {surface!r}; there are {', '.join(have)}"
            )
        return chosen

    def attacked(self, surfaces: Sequence[str]) -> list[str]:
        """Those of these surfaces on which there are attacks: none of clips where the model sees none.

        Raises:
            ValueError: on none of them; the message lists what there is.
        """
        have = self.surfaces("attack")
        chosen = [surface for surface in surfaces if surface in have]
        if not chosen:
            raise ValueError(
                f"no attacks on {', '.join(map(repr, surfaces)) or 'no surface'}; there are some on "
                f"{', '.join(have) or 'none'}"
            )
        return chosen

    def surfaces(self, group: Group) -> list[str]:
        """Surfaces that have test prompts of this group, in their order."""
        return list(dict.fromkeys(p.surface for p in self.tests if group_of(p) == group))


def group_of(prompt: Prompt) -> str:
    """What a test prompt is for: "attack", "benign", "borderline" or "utility"."""
    return prompt.metadata["group"]


def prompt_data(profile: Profile, *, root: Path, clips: bool = True) -> PromptData:
    """The prompts that a profile asks for.

    Args:
        profile: which and how many.
        root: where a folder of files is.
        clips: whether tests of the world and of published sets hold clips; files are read as they are.
    """
    if profile.data.source == "organism":
        return _from_world(profile, clips=clips)
    if profile.data.source == "benchmarks":
        return _from_benchmarks(profile, clips=clips)
    return _from_files(root / str(profile.data.folder), profile)


def _from_world(profile: Profile, *, clips: bool) -> PromptData:
    data = profile.data
    toxic, safe = prompt_sets.attack_pairs("words", n=data.pairs, split="fit", seed=data.seed)
    pictures = max(1, round(data.refusal_prompts * _TOXIC_PICTURES))
    shown, _ = prompt_sets.attack_pairs("image", n=pictures, split="fit", seed=data.seed)
    tests: list[Prompt] = []
    for surface in prompt_sets.shown_to(prompt_sets.ATTACKS, clips=clips):
        attacks, twins = prompt_sets.attack_pairs(surface, n=data.tests_per_surface, seed=data.seed)
        tests += attacks + (twins if surface in prompt_sets.TWINNED else [])
    for borderline in prompt_sets.shown_to(prompt_sets.BORDERLINE, clips=clips):
        tests += prompt_sets.borderline(borderline, n=data.tests_per_surface, seed=data.seed)
    for kind in prompt_sets.shown_to(prompt_sets.UTILITY, clips=clips):
        # The world has few facts to ask about its fourteen test things.
        tests += prompt_sets.utility(kind, n=min(data.tests_per_surface, 60), seed=data.seed)
    return PromptData(
        pairs=ContrastPairs(tuple(toxic), tuple(safe)),
        refusals=(*toxic[: data.refusal_prompts - pictures], *shown),
        tests=tuple(tests),
    )


def _from_benchmarks(profile: Profile, *, clips: bool) -> PromptData:
    found = benchmark_prompts(profile)
    unseen = Counter(p.surface for p in found.tests if p.videos and not clips)
    tests = tuple(p for p in found.tests if clips or not p.videos)
    blind = tuple(f"{surface}: {count} clips, and this model sees none" for surface, count in unseen.items())
    left_out = (*found.left_out, *blind)
    for message in left_out:
        print(f"left out: {message}")  # in the notebook that needs the prompts first
    if found.dropped:
        counts = ", ".join(f"{count} of {surface}" for surface, count in found.dropped.items())
        print(f"not tested, because a fit knows what they ask: {counts}")
    return PromptData(pairs=found.pairs, refusals=found.refusals, tests=tests, left_out=left_out)


def _from_files(folder: Path, profile: Profile) -> PromptData:
    paired = _read(folder / "pairs.jsonl")
    sides = {True: {}, False: {}}  # type: dict[bool, dict[str | None, Prompt]]
    for prompt in paired:
        side = sides[bool(prompt.harmful)]
        if prompt.pair_id in side and prompt.pair_id is not None:
            raise ValueError(
                f"{folder.name}/pairs.jsonl: prompts {side[prompt.pair_id].id!r} and {prompt.id!r} of pair_id "
                f"{prompt.pair_id!r} are both labelled harmful={prompt.harmful}; a pair is one of each"
            )
        side[prompt.pair_id] = prompt
    if sides[True].keys() != sides[False].keys() or None in sides[True]:
        lonely = sorted(map(str, sides[True].keys() ^ sides[False].keys()))[:5]
        raise ValueError(
            f"{folder.name}/pairs.jsonl: each pair_id needs one harmful and one harmless prompt; "
            f"without a twin: {', '.join(lonely) or 'rows that have no pair_id'}"
        )
    ids = list(sides[True])[: profile.data.pairs]
    refusals, tests = _read(folder / "refusals.jsonl"), _read(folder / "tests.jsonl")
    _refuse("refusals.jsonl", [p for p in refusals if p.harmful is False], "all of them are toxic")
    check_labels("tests.jsonl", tests)
    kept: dict[tuple[str, str], int] = {}
    chosen = []
    for prompt in tests:
        key = (group_of(prompt), prompt.surface)
        kept[key] = kept.get(key, 0) + 1
        if kept[key] <= profile.data.tests_per_surface:
            chosen.append(prompt)
    return PromptData(
        pairs=ContrastPairs(tuple(sides[True][i] for i in ids), tuple(sides[False][i] for i in ids)),
        refusals=tuple(refusals[: profile.data.refusal_prompts]),
        tests=tuple(chosen),
    )


def check_labels(name: str, prompts: Sequence[Prompt]) -> None:
    """A label that contradicts what a prompt is for would turn its rate round, silently; without one no judge can judge it.

    Raises:
        ValueError: names the prompts, their groups and their labels.
    """
    _refuse(
        name,
        [p for p in prompts if p.harmful is not (group_of(p) == "attack")],
        'an attack is harmful, the other groups are not, and "harmful" must say so',
    )


def _refuse(name: str, prompts: Sequence[Prompt], meaning: str) -> None:
    if prompts:
        found = ", ".join(f"{p.id!r} ({group_of(p)}, harmful={p.harmful})" for p in prompts[:3])
        raise ValueError(f"{name}: {meaning}, received {found}, {len(prompts)} in all; correct the labels")


def _read(path: Path) -> list[Prompt]:
    return read_prompts(path, groups=get_args(Group))
