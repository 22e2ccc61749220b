"""The prompts of a study from published sets, as the profile's [data.sets] names them.

What is fitted on must be there whole: with fewer pairs or other texts it would be another fit, so a missing set is an
error. A test set that is missing leaves its rows out of the tables; that is printed, and the rest goes on.

What SafeSteer's probe and MARS' texts ask is asked in no test. The probe is fitted on a part of a set that its paper
also tests on (MM-SafetyBench), whose questions come in four forms: drawn, written, both, in words alone. HarmBench
chooses MARS' layer, and some of JailbreakBench's goals are its rows word for word. So a test prompt is dropped if its
plain request, letter case and punctuation aside, is that of a fitted attack in whatever form; or if it is a fitted
harmless prompt (MM-Vet), words and picture: there the same question about another picture is another question. The
harmless twin of an attack that is dropped stays.

AutoSteer's own overlap stays: 95 of VLSafe's 500 test queries are training queries too, over other pictures, as in its
paper. Chapter 10 says what they can do to a rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autosteer_lib.audit.fingerprints import words_of
from autosteer_lib.benchmarks import BenchmarkError, load, load_all
from autosteer_lib.benchmarks.registry import ROLES
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.profiles import Profile, SetsSection
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import TOXIC_IMAGE_SURFACE
from autosteer_lib.text_sets import TextSets

TESTS = ("attacks", "benign", "borderline", "utility")
PROBE = {  # list of [data.sets] → key of [safesteer] that says how many
    "probe_image": "image_attacks",
    "probe_text": "text_attacks",
    "probe_other": "other_attacks",
    "probe_harmless": "harmless",
}
_TOXIC_PICTURES = "tovilag_plus/train"


@dataclass(frozen=True, kw_only=True)
class BenchmarkData:
    """What a study fits on and tests on."""

    pairs: ContrastPairs
    refusals: tuple[Prompt, ...]
    tests: tuple[Prompt, ...]
    left_out: tuple[str, ...]
    """One sentence a test set that is not here."""
    dropped: Mapping[str, int]
    """Test surface → how many of its prompts a fit knows; surfaces without any are not in it."""


def benchmark_prompts(profile: Profile) -> BenchmarkData:
    """Pairs, refusal prompts and tests of a profile with source = "benchmarks".

    Raises:
        BenchmarkError: a set that is fitted on is missing, or not one test set of attacks is here.
    """
    data, sets = profile.data, _sets(profile)
    twins = [p for name in sets.pairs for p in load(name, group="pair", limit=data.pairs, seed=data.seed)]
    toxic, safe = ([p for p in twins if p.harmful is side][: data.pairs] for side in (True, False))
    asked = [_refusals(profile, name) for name in sets.refusals]
    loaded, left_out = _tests(profile, sets)
    met = _fitted(profile, sets)
    known = [met(prompt) for prompt in loaded]
    tests = tuple(prompt for prompt, is_known in zip(loaded, known, strict=True) if not is_known)
    if not any(prompt.metadata["group"] == "attack" for prompt in tests):
        raise BenchmarkError(
            "every attack that is on this machine asks what a probe or a direction is fitted on; list other sets as "
            "[data.sets] attacks, or as probe_… and text_unsafe, validation_unsafe"
        )
    return BenchmarkData(
        pairs=ContrastPairs(tuple(toxic), tuple(safe)),
        refusals=tuple(_shared(asked, data.refusal_prompts)),
        tests=tests,
        left_out=left_out,
        dropped=Counter(p.surface for p, is_known in zip(loaded, known, strict=True) if is_known),
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


def _refusals(profile: Profile, name: str) -> list[Prompt]:
    """Toxic pictures stand under the surface by which AutoSteer's readings know them."""
    prompts = load(name, group="refusal", limit=profile.data.refusal_prompts, seed=profile.data.seed)
    return [replace(p, surface=TOXIC_IMAGE_SURFACE) if p.surface == _TOXIC_PICTURES else p for p in prompts]


def _fitted(profile: Profile, sets: SetsSection) -> Callable[[Prompt], bool]:
    """Whether a test prompt is known to what is fitted on probe sets and texts."""
    harmless = _probe_part(profile, "probe_harmless")
    attacks = [p for role in PROBE if role != "probe_harmless" for p in _probe_part(profile, role)]
    for texts in _two_draws(profile, sets.text_unsafe, sets.validation_unsafe, "text_unsafe"):
        attacks += texts
    ids = {p.id for p in (*harmless, *attacks)}
    requests = {words_of(p.intention) for p in attacks} - {()}
    # Pictures are read of the few prompts whose words are met.
    words, prompts = {words_of(p.text) for p in harmless}, {p.fingerprint for p in harmless}

    def met(prompt: Prompt) -> bool:
        if prompt.id in ids or words_of(prompt.intention) in requests:
            return True
        return words_of(prompt.text) in words and prompt.fingerprint in prompts

    return met


def _tests(profile: Profile, sets: SetsSection) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
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
        prompts += loaded.prompts
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
