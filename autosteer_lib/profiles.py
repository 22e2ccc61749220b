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
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT_PROFILE = "organism"  # the one whose tables, figures and executed notebooks are committed
PROFILE_FOLDER = Path(__file__).parent / "profiles"


class Section(BaseModel):
    """One table of the TOML file: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunSection(Section):
    description: str
    """One line for people: what this profile is for."""
    offline: bool
    """True: nothing is fetched; the driver then forbids it (HF_HUB_OFFLINE), so a run cannot depend on a network."""
    threads: Annotated[int, Field(ge=1)] | Literal[False]
    """CPU threads; false leaves the choice to torch. One thread adds floats in one order on every machine, and
    a model of 1.8 M parameters gains nothing from more: on a busy machine two threads that wait for each
    other were measured to be ten times slower than one."""
    notebooks_at_once: int = Field(ge=1)
    """Notebooks that may run side by side, each with its threads and a model of its own in memory; never more than
    there are cores for. 1 where the model fills the machine."""
    beside: list[str]
    """Profiles whose models the notebooks show beside this one's, as the paper shows two; their answers, states and
    fits are kept in this profile's build."""
    disk_gb: float = Field(gt=0)
    """Free disk space in GB that the driver asks for before it starts: checkpoints, caches, executed notebooks."""


class ModelSection(Section):
    name: str = Field(min_length=1)
    """A folder, relative to the repository's root, or a Hugging Face id (`owner/name`)."""
    revision: str | Literal[False]
    """Commit of the Hugging Face repository, so that a rerun loads the same bytes; false for a folder."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """"auto" is float32 on a CPU and the checkpoint's own type on an accelerator."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    """"auto" takes the first of cuda, mps, cpu that is there."""
    device_map: Literal["auto"] | Literal[False]
    """"auto" spreads a model that is larger than one card (accelerate); false keeps it on one device."""
    add_generation_prompt: bool
    """Whether the chat template opens the assistant's turn. It decides which token is the last of the
    prompt, thus what is probed: with it the end of the assistant header, without it (the official code)
    the end of the user's turn."""
    families: tuple[str, ...]
    """One checkpoint of each further family, by Hugging Face id: `make plan` lists them, and `make fetch
    ARGS=--families` fetches them too. The notebooks load `name` alone."""


class SetsSection(Section):
    """Which benchmarks serve for what, by name ("figstep") or surface ("mm_safetybench/sd"): see
    autosteer_lib/benchmarks. Of a set that has several groups each list takes its own."""

    pairs: tuple[str, ...] = Field(min_length=1)
    """Sets of contrast pairs. Twins share picture and sentence; VLSafe alone has them (AutoSteer §3.2)."""
    refusals: tuple[str, ...] = Field(min_length=1)
    """Sets of toxic prompts that the Refusal Head learns on."""
    attacks: tuple[str, ...] = Field(min_length=1)
    """Test sets of harmful requests."""
    benign: tuple[str, ...]
    """Test sets of their harmless counterparts."""
    borderline: tuple[str, ...]
    """Test sets of harmless requests that look dangerous."""
    utility: tuple[str, ...]
    """Test sets of questions with answers."""
    text_unsafe: tuple[str, ...] = Field(min_length=1)
    """Unsafe texts that the refusal direction is found on (MARS App. C: MaliciousInstruct)."""
    text_safe: tuple[str, ...] = Field(min_length=1)
    """Safe texts beside them (MARS App. C: Alpaca)."""
    validation_unsafe: tuple[str, ...] = Field(min_length=1)
    """Unsafe texts that choose the layer (MARS App. C: HarmBench)."""
    validation_safe: tuple[str, ...] = Field(min_length=1)
    """Safe texts beside them, never those of `text_safe` (MARS App. C: Alpaca)."""


class DataSection(Section):
    source: Literal["organism", "files", "benchmarks"]
    """"organism" draws prompts from the shipped world; "files" reads prepared sets from `folder`; "benchmarks"
    loads the published sets that `sets` names, from this machine's cache (`make fetch` fills it)."""
    folder: str | Literal[False]
    """Folder of prepared sets, relative to the repository's root; false where there is none to read."""
    sets: SetsSection | Literal[False]
    """Published sets, in a table [data.sets]; false for other sources."""
    seed: int = Field(ge=0)
    """Seed of the draw. The notebooks' own `seed` is for training; this one fixes who is in which split."""
    pairs: int = Field(ge=4)
    """N contrast pairs for SAS and prober (AutoSteer: 3,000)."""
    refusal_prompts: int = Field(ge=2)
    """Toxic prompts that the Refusal Head learns on (AutoSteer: 3,000 harmful queries + 1,000 toxic pictures)."""
    tests_per_surface: int = Field(ge=2)
    """Test prompts of each attack surface and of each benign set (AutoSteer: 500)."""


class SasSection(Section):
    candidates: Literal["all"] | tuple[int, ...]
    """Layers that SAS may choose: "all", or a list (the official code looked at each fourth only)."""


class ProberSection(Section):
    width: int = Field(ge=1)
    """Hidden units of d → width → toxicity (AutoSteer §3.3: 64)."""
    epochs: int = Field(ge=1)
    """Passes over the pairs (official code: 200, a checkpoint after each)."""
    lr: float = Field(gt=0)
    """AdamW's step (official code: 1e-5)."""
    weight_decay: float = Field(ge=0)
    """AdamW's decay (official code: 1e-5)."""
    batch_size: int = Field(ge=1)
    """States a step (official code: 8)."""
    held_out: float = Field(gt=0, lt=1)
    """Share of pairs kept out of training; the epoch is chosen on them, never on a test set."""


class HeadSection(Section):
    epsilon: float = Field(gt=0)
    """Strength ε in training and in use: logits of h + ε·h·Sᵀ (AutoSteer §3.4: 0.1)."""
    lr: float = Field(gt=0)
    """AdamW's step (official code: 1e-5)."""
    weight_decay: float = Field(ge=0)
    """AdamW's decay (official code leaves torch's default, 0.01)."""
    epochs: int = Field(ge=1)
    """Passes over the refusal prompts (official code: up to 30, the 12th was used)."""
    batch_size: int = Field(ge=1)
    """Prompts a step (official code: 2)."""
    refusal_text: str = Field(min_length=1)
    """The one answer that the head is trained to give."""


class GateSection(Section):
    threshold: float = Field(gt=0, lt=1)
    """τ: the head is on for an answer when P(toxic) ≥ τ (AutoSteer §3.4: 0.5)."""


class MarsSection(Section):
    texts: int = Field(ge=10)
    """Unsafe texts that the refusal direction is found on, and as many safe ones (MARS App. C: 100)."""
    validation: int = Field(ge=2)
    """Other texts of each kind, which choose the layer (MARS App. C: 100)."""
    neutral: int = Field(ge=1)
    """Neutral pictures, and as many neutral clips (MARS §3.1: 128)."""
    neutral_words: Literal["task"] | Annotated[tuple[str, ...], Field(min_length=1)]
    """What is asked beside them: "task" takes the sentences of the organism's own fit split; or a list of
    sentences (the paper does not say)."""
    side: int = Field(ge=1)
    """Width and height of a neutral sight in pixels (the paper does not say)."""
    frames: int = Field(ge=1)
    """Frames of a neutral clip (the paper has none)."""
    alphas: tuple[float, ...] = Field(min_length=1)
    """Fixed strengths of the preliminary study (MARS §2.2: 1, 2, 3)."""
    neutral_counts: tuple[int, ...] = Field(min_length=1)
    """N of the neutral-picture sweep, each at most `neutral` (MARS Table 9: 0, 8, 24, 48, 64, 128)."""
    sweep_tests: int = Field(ge=1)
    """Prompts of each test set in the sweeps and the ablation, its first ones: there are many variants."""


class SafeSteerSection(Section):
    image_attacks: int = Field(ge=2)
    """Attacks that the picture shows (SafeSteer §3.1: 50, drawn pictures)."""
    text_attacks: int = Field(ge=2)
    """Attacks in words (SafeSteer §3.1: 50)."""
    beside_words: Literal["nothing", "plain"]
    """What those words stand beside: "nothing", or a "plain" picture (SafeSteer §3.1: a blank one)."""
    other_attacks: int = Field(ge=2)
    """Further attacks, half in writing, half in picture and words (SafeSteer §3.1: 50 TYPO and 50 SD + TYPO)."""
    harmless: int = Field(ge=4)
    """Harmless prompts (SafeSteer §3.1: 200 of MM-Vet); of the organism's, half are questions, half requests."""
    held_out: float = Field(gt=0, lt=1)
    """Share of each of these kept back, on which the sign of the score is chosen (ours)."""
    k: int = Field(ge=1)
    """Candidates for each token (SafeSteer does not say which of 5 to 20 it took)."""
    step: int = Field(ge=1)
    """Tokens of an answer that are re-ranked (likewise)."""
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """K of the sweep (SafeSteer App. A: 5, 10, 15, 20)."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Steps of the sweep, 0 being no re-ranking (SafeSteer App. A: 0, 5, 10, 15, 20)."""
    sweep_tests: int = Field(ge=1)
    """Prompts of each test set in the sweeps and the ablations, its first ones: there are many variants."""


class GenerationSection(Section):
    max_new_tokens: int = Field(ge=1)
    """Tokens of an answer at most; decoding is greedy."""
    batch_size: int = Field(ge=1)
    """Prompts answered at once; also the batch in which states are collected."""


class ComparedSection(Section):
    tests: int = Field(ge=1)
    """Prompts of each test set on which all defences are compared, its first ones."""
    validation: int = Field(ge=2)
    """Attacks of each validation surface, and as many harmless twins: of the fit split, met in no fit."""
    candidates: int = Field(ge=1)
    """Settings of each method that are tried on them: its published one, and the next of its list."""
    role_plays: int = Field(ge=8)
    """Texts under a role-play, and as many harmless ones, among which AdaSteer finds unsafe texts that get through
    (its code: 100 of each attack); half of them are held out for its lines."""
    transfer_from: str | Literal[False]
    """Profile whose model lends its refusal direction to activation transfer; false leaves that method out."""


class EvaluationSection(Section):
    seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds whose spread is reported (AutoSteer: one run)."""
    epsilons: tuple[float, ...] = Field(min_length=1)
    """ε of the always-on sweep (AutoSteer Fig. 6: 0 to 0.20 in steps of 0.01)."""
    thresholds: tuple[float, ...] = Field(min_length=1)
    """τ of the threshold sweep (not in the paper)."""
    widths: tuple[int, ...] = Field(min_length=1)
    """Prober widths of the width sweep (not in the paper)."""
    pair_counts: tuple[int, ...] = Field(min_length=1)
    """N of the pair-count sweep, each at most `data.pairs` (not in the paper)."""


class Profile(Section):
    """A whole profile. `name` is the file's own name, never a key in it."""

    name: str
    """Names the build folder: build/<name>."""
    run: RunSection
    model: ModelSection
    data: DataSection
    sas: SasSection
    prober: ProberSection
    head: HeadSection
    gate: GateSection
    mars: MarsSection
    safesteer: SafeSteerSection
    generation: GenerationSection
    compared: ComparedSection
    evaluation: EvaluationSection

    def model_path(self, root: Path) -> str | Path:
        """What `models.load` takes: a folder under `root` if it is one, else the Hugging Face id.

        An id has at most one slash, so a longer name is a folder even where the folder is missing: a lost
        folder is then reported as such instead of being looked for on a network.
        """
        folder = root / self.model.name
        return folder if folder.is_dir() or self.model.name.count("/") > 1 else self.model.name


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
            return path
        raise ValueError(
            f"profile file {path} does not exist; shipped profiles: {', '.join(available_profiles())}"
        )
    if str(name) not in available_profiles():
        raise ValueError(
            f"unknown profile {str(name)!r}: {did_you_mean(str(name), available_profiles())}, or a .toml file"
        )
    return PROFILE_FOLDER / f"{name}.toml"


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
    return f"{where} = {fault['input']!r}: {str(fault['msg']).lower()}. {' '.join(meaning.split())}".rstrip()


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


def _check_sets(profile: str, sets: SetsSection) -> None:
    """Every name is a registered set, and has prompts of the kind that it is listed for."""
    from autosteer_lib.benchmarks.registry import ROLES, find_parts  # which reads this module

    for role, group in ROLES.items():
        for name in getattr(sets, role):
            try:
                find_parts(name, group=group)
            except ValueError as error:
                raise ValueError(f"profile {profile}: [data.sets] {role}: {error}") from None
