"""The prompts that SafeSteer is fitted on, and those of them that are kept back to check its sign.

    image_attacks   harm that the picture shows                           the paper: 50 of MM-SafetyBench's SD
    text_attacks    harm in the words, over a blank picture or none       50 "CB"
    other_attacks   what else a probe should know: written pictures, …    100, TYPO and SD + TYPO
    harmless        ordinary questions about pictures                     200 of MM-Vet

The probe tells all attacks from `harmless`; the alignment vector needs the first two apart.

Source: SafeSteer (arXiv 2605.11716) §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosteer_lib.pairs import split_indices
from autosteer_lib.prompts import Prompt, prompts_of

_ATTACKS = ("image_attacks", "text_attacks", "other_attacks")


@dataclass(frozen=True, kw_only=True)
class ProbeSets:
    """Attacks by kind, and harmless prompts; labels are checked."""

    harmless: tuple[Prompt, ...]
    image_attacks: tuple[Prompt, ...] = ()
    text_attacks: tuple[Prompt, ...] = ()
    other_attacks: tuple[Prompt, ...] = ()

    def __post_init__(self) -> None:
        for name in (*_ATTACKS, "harmless"):
            prompts = prompts_of(getattr(self, name), name=name)
            object.__setattr__(self, name, prompts)  # lists are welcome
            for prompt in prompts:
                if prompt.harmful is not (name != "harmless"):
                    raise ValueError(
                        f"{name} holds prompt {prompt.id!r} with harmful={prompt.harmful}; it must be labelled "
                        f"harmful={name != 'harmless'}"
                    )
        for prompt in self.image_attacks:
            if prompt.modality == "text":
                raise ValueError(
                    f"image_attacks holds prompt {prompt.id!r}, which shows nothing; put it under text_attacks"
                )
        attacks = {prompt.fingerprint for prompt in self.attacks}
        shared = [prompt.id for prompt in self.harmless if prompt.fingerprint in attacks]
        if shared:
            raise ValueError(
                f"harmless prompts {', '.join(map(repr, shared[:3]))} ({len(shared)} in all) are among the attacks "
                "too; a probe cannot learn both labels of one prompt: leave them out of one"
            )

    @property
    def attacks(self) -> tuple[Prompt, ...]:
        """Of all kinds."""
        return (*self.image_attacks, *self.text_attacks, *self.other_attacks)

    def split(self, *, held_out: float, seed: int) -> tuple[ProbeSets, ProbeSets]:
        """(training sets, held-out sets): the share of every kind, at least one prompt of each."""
        parts: tuple[dict[str, tuple[Prompt, ...]], dict[str, tuple[Prompt, ...]]] = ({}, {})
        for name in (*_ATTACKS, "harmless"):
            prompts: tuple[Prompt, ...] = getattr(self, name)
            chosen = split_indices(len(prompts), held_out=held_out, seed=seed) if prompts else ([], [])
            for part, indices in zip(parts, chosen, strict=True):
                part[name] = tuple(prompts[index] for index in indices)
        return ProbeSets(**parts[0]), ProbeSets(**parts[1])
