"""A profile: every size, name and hyper-parameter of one run, in one checked TOML file.

The same notebooks run under each profile (`make reproduce PROFILE=small`); nothing in a notebook asks
which one it is in. A profile is complete: no key has a hidden default, so that the file alone says what
was run. A key that does not exist, a value of the wrong type or out of range is an error that names what
is allowed; two profiles share nothing, not even a build folder.

    organism   the default: the shipped model, offline, minutes on two cores; its numbers are committed
    chameleon  the same on the second shipped model: early fusion, no clips
    smoke      the same in seconds, for tests
    small      real checkpoints of a 16 GB card
    paper      AutoSteer's own checkpoint and hyper-parameters
"""

import difflib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from autosteer_lib.profile_sections import Profile, Section, SetsSection

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILE_FOLDER",
    "Profile",
    "Section",
    "SetsSection",
    "available_profiles",
    "did_you_mean",
    "load_profile",
]

DEFAULT_PROFILE = "organism"  # the one whose tables, figures and executed notebooks are committed
PROFILE_FOLDER = Path(__file__).parent / "profiles"


def available_profiles() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.toml"))


def load_profile(name: str | Path) -> Profile:
    """Load and check a shipped profile by name, or any TOML file by path.

    Raises:
        ValueError: unknown profile, unreadable TOML, or keys and values that are not allowed; the message
            lists every fault, what is allowed and the nearest match.
    """
    path = _profile_path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"profile {path} is not valid TOML: {error}; correct the file") from None
    if "name" in content:
        raise ValueError(f"profile {path}: `name` is not a key, the file's name is the profile's; remove it")
    try:
        # Through JSON because only there pydantic is strict (no "200" for 200, no true for 1) and still
        # takes a list for a tuple. A TOML date has no JSON form and becomes text, which no number accepts.
        profile = Profile.model_validate_json(
            json.dumps({"name": path.stem, **content}, default=str), strict=True
        )
    except ValidationError as error:
        told = [
            fault
            for fault in error.errors()
            if "literal[False]" not in fault["loc"] or fault["loc"][1] != "sets"
        ]
        faults = "\n".join(f"  {_fault(dict(fault))}" for fault in told)
        raise ValueError(f"profile {path.stem} ({path.name}) is not valid:\n{faults}") from None
    _check_together(profile)
    return profile


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """`allowed: a, b, c` with the nearest of them named first, for messages about unknown names."""
    allowed = sorted(allowed)
    nearest = difflib.get_close_matches(value, allowed, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"


def _profile_path(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or path.parent != Path():
        if path.is_file():
            _check_name(path)
            return path
        what = "is a folder, not a .toml file" if path.is_dir() else "does not exist"
        raise ValueError(f"profile file {path} {what}; shipped profiles: {', '.join(available_profiles())}")
    if str(name) not in available_profiles():
        raise ValueError(
            f"unknown profile {str(name)!r}: {did_you_mean(str(name), available_profiles())}, or a .toml file"
        )
    return PROFILE_FOLDER / f"{name}.toml"


def _check_name(path: Path) -> None:
    """A file that is called like a shipped profile would share its build, and be compared with what is committed."""
    if path.stem in available_profiles() and path.resolve().parent != PROFILE_FOLDER.resolve():
        raise ValueError(
            f"profile file {path} has the name of a shipped profile, whose build folder it would share; rename it"
        )


def _fault(fault: dict[str, object]) -> str:
    """One pydantic fault as a sentence: where, what was received, what is allowed."""
    location = fault["loc"]
    assert isinstance(location, tuple)
    section, key = str(location[0]), ".".join(str(part) for part in location[1:2])
    known: object = Profile.model_fields[section].annotation if section in Profile.model_fields else Profile
    if location[1:3] == ("sets", SetsSection.__name__):
        section, key, known = "data.sets", ".".join(str(part) for part in location[3:4]), SetsSection
    fields = (
        known.model_fields if isinstance(known, type) and issubclass(known, Section) else Profile.model_fields
    )
    where = f"[{section}] {key}".strip()
    if fault["type"] == "extra_forbidden":
        unknown = key or section
        return f"{where}: no such key; {did_you_mean(unknown, set(fields) - {'name'})}"
    if fault["type"] == "missing":
        return f"{where}: missing; a profile states every key (copy it from {DEFAULT_PROFILE}.toml)"
    meaning = (fields[key].description or "") if key in fields else ""
    # pydantic's own words for an empty list are of a tuple "after validation".
    wrong = "give at least one" if fault["type"] == "too_short" else str(fault["msg"]).lower()
    return f"{where} = {fault['input']!r}: {wrong}. {' '.join(meaning.split())}".rstrip()


def _check_together(profile: Profile) -> None:
    """What no single key can show."""
    too_many = [count for count in profile.evaluation.pair_counts if not 4 <= count <= profile.data.pairs]
    if too_many:
        raise ValueError(
            f"profile {profile.name}: [evaluation] pair_counts has {too_many}, but [data] pairs = "
            f"{profile.data.pairs}; each count must lie between 4 and that"
        )
    if (profile.data.source == "files") != bool(profile.data.folder):
        raise ValueError(
            f"profile {profile.name}: [data] source = {profile.data.source!r} with folder = "
            f'{profile.data.folder!r}; "files" needs a folder, the others have folder = false'
        )
    if (profile.data.source == "benchmarks") != bool(profile.data.sets):
        raise ValueError(
            f"profile {profile.name}: [data] source = {profile.data.source!r} with "
            f'{"a table [data.sets]" if profile.data.sets else "sets = false"}; "benchmarks" needs the table, the others '
            "have sets = false"
        )
    if profile.data.sets:
        _check_sets(profile.name, profile.data.sets)
    beyond = [count for count in profile.mars.neutral_counts if not 0 <= count <= profile.mars.neutral]
    if beyond:
        raise ValueError(
            f"profile {profile.name}: [mars] neutral_counts has {beyond}, but [mars] neutral = "
            f"{profile.mars.neutral}; each count must lie between 0 and that"
        )
    if profile.mars.neutral_words == "task" and profile.data.source != "organism":
        raise ValueError(
            f'profile {profile.name}: [mars] neutral_words = "task" takes the organism\'s sentences, but [data] '
            f"source = {profile.data.source!r}; give a list of sentences"
        )
    wrong = [value for value in profile.evaluation.thresholds if not 0 <= value <= 1]
    if wrong:
        raise ValueError(
            f"profile {profile.name}: [evaluation] thresholds has {wrong}; each is a probability, 0 to 1"
        )
    for key, named in (
        ("[run] beside", profile.run.beside),
        ("[compared] transfer_from", [profile.compared.transfer_from or profile.name]),
    ):
        for other in named:
            if other != profile.name:
                try:
                    _profile_path(other)
                except ValueError as error:
                    raise ValueError(
                        f"profile {profile.name}: {key} names another profile: {error}"
                    ) from None
    _check_judges(profile)


def _check_sets(profile: str, sets: SetsSection) -> None:
    """Every name is a registered set, has prompts of its list's kind, and stands in no list that must not share it."""
    from autosteer_lib.benchmarks.registry import ROLES, find_parts  # which reads this module

    for role, group in ROLES.items():
        for name in getattr(sets, role):
            try:
                find_parts(name, group=group)
            except ValueError as error:
                raise ValueError(f"profile {profile}: [data.sets] {role}: {error}") from None
    settings = ("settings_attacks", "settings_benign")
    for role in settings:
        others = [other for other in ROLES if other not in settings]
        if shared := _in_both(sets, role, others):
            raise ValueError(
                f"profile {profile}: [data.sets] {role} has rows of {shared}; settings would be chosen on prompts that "
                "are fitted on or tested on: take other sets"
            )
    for role in ("text_unsafe", "text_safe", "validation_unsafe", "validation_safe"):
        tests = ("attacks", "benign", "borderline", "utility")
        if shared := _in_both(sets, role, [test for test in tests if ROLES[test] == ROLES[role]]):
            raise ValueError(
                f"profile {profile}: [data.sets] {role} has rows of {shared}; a direction, or its layer, would be chosen "
                "on prompts that are tested on: take other sets"
            )


def _in_both(sets: SetsSection, role: str, others: Iterable[str]) -> str:
    """`figstep (also in attacks), …`: whole sets, for the surfaces of one ask the same in other forms."""

    def whole(role: str) -> set[str]:
        return {name.split("/")[0] for name in getattr(sets, role)}

    found = {other: sorted(whole(role) & whole(other)) for other in others}
    return ", ".join(f"{', '.join(names)} (also in {other})" for other, names in found.items() if names)


def _check_judges(profile: Profile) -> None:
    from autosteer_lib.judges.named import MODELS, word_judges

    judges, words = profile.judges, word_judges()
    if judges.decides not in words:
        raise ValueError(
            f"profile {profile.name}: [judges] decides = {judges.decides!r} is no judge of words: "
            f"{did_you_mean(judges.decides, words)}; a judge that is a model belongs into second"
        )
    if judges.decides == "truth" and profile.data.source != "organism":
        raise ValueError(
            f'profile {profile.name}: [judges] decides = "truth", which is known of the organism\'s prompts alone, but '
            f"[data] source = {profile.data.source!r}; take another judge"
        )
    unknown = [name for name in judges.second if name not in (*words, *MODELS)]
    if unknown or judges.decides in judges.second:
        wrong = unknown[0] if unknown else judges.decides
        why = did_you_mean(wrong, [*words, *MODELS]) if unknown else "it decides already; leave it out"
        raise ValueError(f"profile {profile.name}: [judges] second has {wrong!r}: {why}")
