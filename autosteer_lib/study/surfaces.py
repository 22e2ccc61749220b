"""Which of a study's surfaces show what: where the harm of a request is, in the organism's world and in published sets.

    text          in words alone                                        text · JailbreakBench, HarmBench, …
    role-play     in words, under a role-play                           jailbreak · JailBreakV
    words         in words, beside a harmless picture                   words · VLSafe, VLGuard's safe pictures, …
    image         in the picture; the words ask nothing bad             image · MM-SafetyBench's SD, HADES' neutral ones, …
    typographic   written in the picture                                typographic · FigStep, MM-SafetyBench's TYPO, …
    both          in words and in the picture                           both · HADES with its instruction, …
    combination   in neither alone                                      combination · MSSBench, SIUO
    video         in the clip                                           video · Video-SafetyBench

A chapter asks for kinds and gets surfaces that its prompts have; all that it names is its paper's own set, before the
kind that stands for it. A surface of files that has another name is told by its first attack: what there is to see, and
whether the words say the plain intention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from autosteer_lib.prompts import Prompt
from autosteer_lib.study.study import Study

SURFACES: dict[str, tuple[str, ...]] = {
    "text": (
        "text", "jailbreakbench", "harmbench", "harmbench/standard", "advbench", "strongreject", "xstest",
        "malicious_instruct", "mm_safetybench/text",
    ),
    "role-play": ("jailbreak", "jailbreakv", "jailbreakv/full"),
    "words": ("words", "vlsafe", "tovilag_plus/text", "vlguard/safe_image", "spa_vl"),
    "image": ("image", "mm_safetybench/sd", "vlguard/unsafe_image", "hades/neutral", "tovilag_plus/image"),
    "typographic": ("typographic", "figstep", "figstep/tiny", "mm_safetybench/typo", "mm_safetybench/sd_typo"),
    "both": ("both", "hades", "tovilag_plus/both"),
    "combination": ("combination", "mssbench/chat", "mssbench/embodied", "siuo"),
    "video": ("video", "video_safetybench/benign", "video_safetybench/harmful"),
}  # fmt: skip
IN_WORDS = ("text", "role-play", "words")
IN_SIGHT = ("image", "typographic", "video")  # nothing in the words tells
MUST_BE_SEEN = (*IN_SIGHT, "combination")  # nor do the words alone
_KINDS = {surface: kind for kind, surfaces in SURFACES.items() for surface in surfaces}


def kind_of(surface: str) -> str | None:
    """The kind of a surface that is known by its name; None for others."""
    return _KINDS.get(surface)


def kinds(study: Study, *, group: str = "attack") -> dict[str, str]:
    """Each surface of the study's attacks (or of another group) and its kind."""
    firsts = {s: study.data.test(group=group, surface=s)[0] for s in study.data.surfaces(group)}  # type: ignore[arg-type]  # a Group
    return {surface: _KINDS.get(surface) or _told_by(prompt) for surface, prompt in firsts.items()}


def twinned(study: Study) -> list[str]:
    """Surfaces whose attacks have harmless twins.

    Raises:
        ValueError: there are none, so that nothing tells harm from its surroundings.
    """
    benign = set(study.data.surfaces("benign"))
    found = [s for s in study.data.surfaces("attack") if s in benign]
    if not found:
        raise ValueError(
            f"profile {study.profile.name}: no attack surface has harmless prompts of the same surface, so nothing tells "
            "harm from what surrounds it. Give some: of the published sets, jailbreakbench and mssbench/chat have both "
            "and no gate ([data.sets] attacks and benign)"
        )
    return found


def all_of(study: Study, *wanted: str, twins: bool = False) -> list[str]:
    """Every attack surface of these kinds, kind after kind; with `twins`, those that have twins."""
    known, among = kinds(study), _among(study, twins=twins)
    return [surface for kind in wanted for surface in among if known[surface] == kind]


def first_of(study: Study, *wanted: str | tuple[str, ...], twins: bool = False) -> list[str]:
    """The first attack surface of each kind; of a kind that the study lacks, none.

    A surface that has twins comes before one that has none. Where the study has none of these kinds, its first
    surface stands for all.

    Args:
        study: whose prompts.
        wanted: kinds, or a paper's own set by its surface; of several in brackets the first that there is.
        twins: only surfaces that have twins.
    """
    benign, among = set(study.data.surfaces("benign")), _among(study, twins=twins)
    chosen = []
    for kind in wanted:
        found = (
            [name]
            if name in among
            else sorted(all_of(study, name, twins=twins), key=lambda s: s not in benign)
            for name in ((kind,) if isinstance(kind, str) else kind)
        )
        chosen += next((some[:1] for some in found if some), [])
    return list(dict.fromkeys(chosen)) or among[:1]


def either_of(wanted: Iterable[str], *, among: Collection[str]) -> list[str]:
    """Of a set's own name and kinds the first that is among the surfaces: itself, or all of the kind."""
    found = ([name] if name in among else [s for s in among if kind_of(s) == name] for name in wanted)
    return next((some for some in found if some), [])


def have(surfaces: Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """Those of the surfaces that are among the names, in their order."""
    return tuple(surface for surface in surfaces if surface in names)


def _among(study: Study, *, twins: bool) -> list[str]:
    return twinned(study) if twins else study.data.surfaces("attack")


def _told_by(prompt: Prompt) -> str:
    if prompt.modality == "video":
        return "video"
    if prompt.modality == "text":
        return "text"
    return "words" if prompt.intention.lower() in prompt.text.lower() else "image"
