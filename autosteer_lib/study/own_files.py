"""Prompts of one's own, checked as a whole before a run: what each file of [data] folder must hold.

    pairs.jsonl        contrast pairs: two rows a pair_id, one harmful, one not, with the same pictures
    refusals.jsonl     toxic prompts that the Refusal Head learns on
    tests.jsonl        what is tested: group "attack", "benign", "borderline" or "utility"
    texts.jsonl        words alone, harmful and not: group "direction" or "validation" (MARS and all of notebook 08)
    probe.jsonl        group "image", "text", "other" or "harmless" (SafeSteer)
    validation.jsonl   what settings are chosen on: group "attack" or "benign" (notebook 08)

Notebooks read each file when they need it. A run that needs hours is not to find a missing picture at its end, so the
driver and `make plan` look at all of them first, at every picture and film too; no model is needed for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from autosteer_lib.profiles import Profile
from autosteer_lib.prompts import Prompt, clip_shapes
from autosteer_lib.study.probe_data import probe_data
from autosteer_lib.study.prompt_data import check_labels, group_of, prompt_data
from autosteer_lib.study.prompt_files import read_prompts
from autosteer_lib.study.text_data import text_data

VALIDATION = "validation.jsonl"
VALIDATION_GROUPS = ("attack", "benign")


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    """What a run takes of one file."""

    name: str
    prompts: tuple[Prompt, ...]
    wanted: dict[str, int]
    """Rows that the profile asks for, by what they are for; fewer are allowed, where the fit takes fewer."""
    found: dict[str, int]
    """Rows that are there."""


def check_own_files(profile: Profile, *, root: Path) -> list[OwnFile]:
    """Read every file that a profile with data.source = "files" needs.

    Args:
        profile: which folder, and how many rows of each kind are asked for.
        root: where a relative folder starts.

    Raises:
        ValueError: all that is wrong with the files, one fault a line.
    """
    folder = root / str(profile.data.folder)
    faults: list[str] = []
    read = [
        _attempt(part, profile, root, faults) for part in (_of_tests, _of_texts, _of_probe, _of_validation)
    ]
    files = [file for part in read for file in part]
    faults += _unreadable(prompt for file in files for prompt in file.prompts)
    if not faults:
        faults += _met_elsewhere(files)
    if faults:
        raise ValueError(
            f"the prompts in {folder} cannot be used (what each file holds: autosteer_lib/study/own_files.py):\n"
            + "\n".join(f"  {line}" for fault in dict.fromkeys(faults) for line in fault.splitlines())
        )
    return files


def validation_prompts(profile: Profile, *, root: Path) -> list[Prompt]:
    """All of validation.jsonl.

    Raises:
        ValueError: rows that cannot be read, or whose label is not that of their group.
    """
    prompts = read_prompts(root / str(profile.data.folder) / VALIDATION, groups=VALIDATION_GROUPS)
    check_labels(VALIDATION, prompts)
    return prompts


def _attempt(
    part: Callable[[Profile, Path], list[OwnFile]], profile: Profile, root: Path, faults: list[str]
) -> list[OwnFile]:
    try:
        return part(profile, root)
    except (ValueError, OSError) as error:
        faults.append(str(error))
        return []


def _of_tests(profile: Profile, root: Path) -> list[OwnFile]:
    data, wanted = prompt_data(profile, root=root), profile.data
    _check_surfaces(data.tests)
    each = Counter(f"{group_of(p)}/{p.surface}" for p in data.tests)
    return [
        _file("pairs", (*data.pairs.toxic, *data.pairs.safe), {"pairs": (wanted.pairs, len(data.pairs))}),
        _file("refusals", data.refusals, {"prompts": (wanted.refusal_prompts, len(data.refusals))}),
        _file("tests", data.tests, {name: (wanted.tests_per_surface, n) for name, n in each.items()}),
    ]


def _check_surfaces(tests: Sequence[Prompt]) -> None:
    if nameless := [p.id for p in tests if not p.surface]:
        raise ValueError(
            f"tests.jsonl: {', '.join(map(repr, nameless[:3]))} ({len(nameless)} in all) have no surface, by which tables "
            "group them; name their set or where the harm is, as in text, words, image, typographic, video"
        )
    surfaces = {g: {p.surface for p in tests if group_of(p) == g} for g in ("attack", "benign")}
    if not surfaces["attack"] & surfaces["benign"]:
        raise ValueError(
            f"tests.jsonl: attacks are of surface {', '.join(sorted(surfaces['attack'])) or 'none'}, benign prompts of "
            f"{', '.join(sorted(surfaces['benign'])) or 'none'}; at least one surface needs both, or nothing tells harm "
            "from its surroundings"
        )


def _of_texts(profile: Profile, root: Path) -> list[OwnFile]:
    texts, wanted = text_data(profile, root=root, clips=False).texts, profile.mars
    sides = {
        "unsafe": (wanted.texts, texts.unsafe),
        "safe": (wanted.texts, texts.safe),
        "validation, unsafe": (wanted.validation, texts.validation_unsafe),
        "validation, safe": (wanted.validation, texts.validation_safe),
    }
    prompts = [prompt for _, side in sides.values() for prompt in side]
    return [_file("texts", prompts, {name: (asked, len(side)) for name, (asked, side) in sides.items()})]


def _of_probe(profile: Profile, root: Path) -> list[OwnFile]:
    sets, wanted = probe_data(profile, root=root), profile.safesteer
    counts = {
        "image": (wanted.image_attacks, len(sets.image_attacks)),
        "text": (wanted.text_attacks, len(sets.text_attacks)),
        "other": (wanted.other_attacks, len(sets.other_attacks)),
        "harmless": (wanted.harmless, len(sets.harmless)),
    }
    # The alignment vector needs the first two apart, and each is split in a part for the fit and one held out.
    short = [name for name, (_, count) in counts.items() if count < 2]
    if short:
        raise ValueError(
            f"probe.jsonl has fewer than 2 rows of group {', '.join(short)}; SafeSteer needs all four"
        )
    return [_file("probe", (*sets.attacks, *sets.harmless), counts)]


def _of_validation(profile: Profile, root: Path) -> list[OwnFile]:
    prompts, asked = validation_prompts(profile, root=root), profile.compared.validation
    missing = set(VALIDATION_GROUPS) - {group_of(p) for p in prompts}
    if missing:
        raise ValueError(
            f"{VALIDATION} has no row of group {', '.join(sorted(missing))}; settings are chosen by what happens to both"
        )
    each = Counter(f"{group_of(p)}/{p.surface}" for p in prompts)
    return [_file("validation", prompts, {name: (asked, n) for name, n in each.items()})]


def _met_elsewhere(files: Sequence[OwnFile]) -> list[str]:
    """Settings would be chosen on prompts that are fitted on or tested on."""
    validation = next(file.prompts for file in files if file.name == VALIDATION)
    words = {prompt.text for prompt in validation}
    faults = []
    for file in files:
        known = {p.fingerprint for p in file.prompts if p.text in words and file.name != VALIDATION}
        if shared := [repr(p.id) for p in validation if p.text in words and p.fingerprint in known]:
            faults.append(
                f"{VALIDATION} holds {', '.join(shared[:3])} ({len(shared)} in all), which {file.name} asks too; leave them "
                "out of one"
            )
    return faults


def _file(name: str, prompts: Sequence[Prompt], counts: dict[str, tuple[int, int]]) -> OwnFile:
    return OwnFile(
        name=f"{name}.jsonl",
        prompts=tuple(prompts),
        wanted={kind: asked for kind, (asked, _) in counts.items()},
        found={kind: found for kind, (_, found) in counts.items()},
    )


def _unreadable(prompts: Iterable[Prompt]) -> list[str]:
    """Pictures that are none, by their first bytes, and films without a frame."""
    faults: list[str] = []
    seen: set[Any] = set()
    for prompt in prompts:
        for image in prompt.images:
            if isinstance(image, Path) and image not in seen:
                seen.add(image)
                try:
                    Image.open(image).close()
                except (OSError, SyntaxError, ValueError) as error:
                    faults.append(
                        f"prompt {prompt.id!r}: {image.name} is no picture that Pillow can read ({type(error).__name__}); "
                        "save it as PNG or JPEG"
                    )
        if prompt.videos and not seen.issuperset(prompt.videos):
            seen.update(prompt.videos)
            try:
                clip_shapes(prompt)
            except (ValueError, ImportError) as error:
                faults.append(str(error))
    return faults
