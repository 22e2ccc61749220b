"""The prompts of a study from published sets, as the profile's [data.sets] names them.

What is fitted on must be there whole: with fewer pairs or other texts it would be another fit, so a missing set is an
error. A test set that is missing leaves its rows out of the tables; that is printed, and the rest goes on.

SafeSteer's probe is fitted on a part of a set that the paper also tests on (MM-SafetyBench, MM-Vet): rows that it is
fitted on are left out of the tests here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autosteer_lib.benchmarks import BenchmarkError, load, load_all
from autosteer_lib.benchmarks.registry import ROLES
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.profiles import Profile, SetsSection
from autosteer_lib.prompts import Prompt
from autosteer_lib.text_sets import TextSets

TESTS = ("attacks", "benign", "borderline", "utility")
PROBE = {  # list of [data.sets] → key of [safesteer] that says how many
    "probe_image": "image_attacks",
    "probe_text": "text_attacks",
    "probe_other": "other_attacks",
    "probe_harmless": "harmless",
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkData:
    """What a study fits on and tests on."""

    pairs: ContrastPairs
    refusals: tuple[Prompt, ...]
    tests: tuple[Prompt, ...]
    left_out: tuple[str, ...]
    """One sentence a test set that is not here."""


def benchmark_prompts(profile: Profile) -> BenchmarkData:
    """Pairs, refusal prompts and tests of a profile with source = "benchmarks".

    Raises:
        BenchmarkError: a set that is fitted on is missing, or not one test set of attacks is here.
    """
    data, sets = profile.data, _sets(profile)
    twins = [p for name in sets.pairs for p in load(name, group="pair", limit=data.pairs, seed=data.seed)]
    toxic, safe = ([p for p in twins if p.harmful is side][: data.pairs] for side in (True, False))
    asked = [
        load(name, group="refusal", limit=data.refusal_prompts, seed=data.seed) for name in sets.refusals
    ]
    fitted = {prompt.id for role in PROBE for prompt in _probe_part(profile, role)}
    tests, left_out = _tests(profile, sets, fitted=fitted)
    return BenchmarkData(
        pairs=ContrastPairs(tuple(toxic), tuple(safe)),
        refusals=tuple(_shared(asked, data.refusal_prompts)),
        tests=tests,
        left_out=left_out,
    )


def benchmark_texts(profile: Profile) -> TextSets:
    """What MARS finds its direction on, and the others that choose its layer.

    Raises:
        BenchmarkError: a set is missing.
    """
    sets = _sets(profile)
    unsafe, validation_unsafe = _two_draws(profile, sets.text_unsafe, sets.validation_unsafe, "text_unsafe")
    safe, validation_safe = _two_draws(profile, sets.text_safe, sets.validation_safe, "text_safe")
    return TextSets(
        unsafe=unsafe, safe=safe, validation_unsafe=validation_unsafe, validation_safe=validation_safe
    )


def benchmark_probe(profile: Profile) -> ProbeSets:
    """What SafeSteer's probe is fitted on; its attacks in words stand beside nothing yet.

    Raises:
        BenchmarkError: a set is missing.
    """
    parts = {role: tuple(_probe_part(profile, role)) for role in PROBE}
    return ProbeSets(
        image_attacks=parts["probe_image"],
        text_attacks=parts["probe_text"],
        other_attacks=parts["probe_other"],
        harmless=parts["probe_harmless"],
    )


def benchmark_settings(profile: Profile) -> list[Prompt]:
    """Attacks and harmless prompts on which the comparison chooses settings; in no fit and no test.

    Raises:
        BenchmarkError: a set is missing.
    """
    sets, count, seed = _sets(profile), profile.compared.validation, profile.data.seed
    return [
        prompt
        for role in ("settings_attacks", "settings_benign")
        for name in getattr(sets, role)
        for prompt in load(name, group=ROLES[role], limit=count, seed=seed)
    ]


def _probe_part(profile: Profile, role: str) -> list[Prompt]:
    """An equal share of each of the role's sets."""
    count, names = getattr(profile.safesteer, PROBE[role]), getattr(_sets(profile), role)
    shares = [(count + place) // len(names) for place in range(len(names))]
    return [
        prompt
        for name, share in zip(names, shares, strict=True)
        for prompt in load(name, group=ROLES[role], limit=share, seed=profile.data.seed)[:share]
    ]


def _sets(profile: Profile) -> SetsSection:
    assert profile.data.sets, "profiles._check_together"
    return profile.data.sets


def _tests(
    profile: Profile, sets: SetsSection, *, fitted: set[str]
) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
    prompts: list[Prompt] = []
    left_out: list[str] = []
    for role in TESTS:
        loaded = load_all(
            getattr(sets, role),
            group=ROLES[role],
            limit=profile.data.tests_per_surface,
            seed=profile.data.seed,
        )
        if role == "attacks" and not loaded.prompts:
            raise BenchmarkError("none of the attacks is on this machine:\n  " + "\n  ".join(loaded.failed))
        prompts += [prompt for prompt in loaded.prompts if prompt.id not in fitted]
        left_out += loaded.failed
    return tuple(prompts), tuple(left_out)


def _shared(drawn: Sequence[Sequence[Prompt]], count: int) -> list[Prompt]:
    """At most `count` prompts, of each set in proportion to what it has."""
    total = sum(len(prompts) for prompts in drawn)
    if total <= count:
        return [p for prompts in drawn for p in prompts]
    return [p for prompts in drawn for p in prompts[: max(1, count * len(prompts) // total)]]


def _two_draws(
    profile: Profile, names: Sequence[str], others: Sequence[str], role: str
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Texts for the direction, and others for the layer; of one set in both lists, two parts of one draw."""
    mars, seed, group = profile.mars, profile.data.seed, ROLES[role]
    both = mars.texts + mars.validation
    drawn = [p for name in names for p in load(name, group=group, limit=both, seed=seed)]
    first = _shared([drawn], mars.texts)
    met = {p.text for p in first}  # a set may hold a text twice
    pool = [p for name in others for p in load(name, group=group, limit=both, seed=seed)]
    return tuple(first), tuple([p for p in pool if p.text not in met][: mars.validation])
