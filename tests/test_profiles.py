"""A profile is complete, checked, and read: no key is optional, unknown or ignored."""

import re
from functools import cache
from pathlib import Path

import pytest

from autosteer_lib.profiles import (
    DEFAULT_PROFILE,
    PROFILE_FOLDER,
    Profile,
    Section,
    available_profiles,
    load_profile,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def edited(tmp_path):
    """Writes the smoke profile with one text replaced, and returns its path."""

    def edit(old: str, new: str) -> Path:
        text = (PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return edit


def test_the_five_profiles_ship():
    assert available_profiles() == ["chameleon", "organism", "paper", "small", "smoke"]


@pytest.mark.parametrize("name", available_profiles())
def test_every_shipped_profile_loads(name):
    assert load_profile(name).name == name


def test_paper_profile_states_the_papers_hyper_parameters():
    paper = load_profile("paper")
    assert paper.model.name == "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    assert (paper.model.dtype, paper.model.add_generation_prompt) == ("float16", True)
    prober = paper.prober
    assert (prober.width, prober.epochs, prober.lr, prober.weight_decay, prober.batch_size) == (
        64,
        200,
        1e-5,
        1e-5,
        8,
    )
    assert (paper.head.epsilon, paper.head.lr, paper.head.batch_size) == (0.1, 1e-5, 2)
    assert paper.gate.threshold == 0.5
    assert paper.generation.max_new_tokens == 150
    assert (paper.data.pairs, paper.data.tests_per_surface) == (3000, 500)
    assert paper.head.refusal_text == "I'm sorry, but I can't assist with that."
    assert paper.evaluation.epsilons == tuple(index / 100 for index in range(21))


def test_smoke_differs_from_organism_in_sizes_only():
    smoke, organism = load_profile("smoke"), load_profile("organism")
    assert smoke.model == organism.model
    assert smoke.gate == organism.gate
    assert smoke.head.refusal_text == organism.head.refusal_text
    assert smoke.data.pairs < organism.data.pairs


def test_profile_from_a_path_is_named_after_its_file(edited):
    assert load_profile(edited("pairs = 16", "pairs = 18")).name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "width = 8",
            "widht = 8",
            r"\[prober\] widht: no such key; did you mean width\? allowed: batch_size",
        ),
        ("[gate]", "[gaet]", r"\[gaet\]: no such key; did you mean gate\?"),
        ("width = 8", "", r"\[prober\] width: missing; a profile states every key"),
        (
            "width = 8",
            'width = "8"',
            r"\[prober\] width = '8': input should be a valid integer. Hidden units",
        ),
        ("width = 8", "width = true", r"\[prober\] width = True"),
        ("width = 8", "width = 1979-05-27", r"\[prober\] width = '1979-05-27'"),
        ("width = 8", "width = 0", r"\[prober\] width = 0: input should be greater than or equal to 1"),
        ("widths = [4, 8]", "widths = []", r"widths = \[\]: give at least one. Prober widths"),
        ("threshold = 0.5", "threshold = 1.5", r"\[gate\] threshold = 1.5: input should be less than 1"),
        ('dtype = "float32"', 'dtype = "fp32"', r"dtype = 'fp32': input should be 'auto', 'float32'"),
        ("seeds = [0]", "seeds = []", r"\[evaluation\] seeds"),
        ("pairs = 16", "pairs = 8", r"pair_counts has \[16\], but \[data\] pairs = 8"),
        ('source = "organism"', 'source = "files"', r'"files" needs a folder'),
        (
            "neutral_counts = [0, 4]",
            "neutral_counts = [0, 9]",
            r"neutral_counts has \[9\], but \[mars\] neutral = 4",
        ),
        (
            'source = "organism"\nfolder = false',
            'source = "files"\nfolder = "x"',
            r'neutral_words = "task" takes the organism',
        ),
        ("thresholds = [0.5]", "thresholds = [5.0]", r"thresholds has \[5.0\]; each is a probability"),
        (
            "beside = []",
            'beside = ["orgnism"]',
            r"\[run\] beside .*: unknown profile 'orgnism': did you mean organism",
        ),
        (
            "transfer_from = false",
            'transfer_from = "lost.toml"',
            r"\[compared\] transfer_from names another profile: profile file lost.toml does not exist",
        ),
        ("[run]", 'name = "other"\n[run]', r"`name` is not a key"),
        ("[run]", "[run", r"is not valid TOML"),
    ],
)
def test_a_fault_says_what_was_received_and_what_is_allowed(edited, old, new, message):
    with pytest.raises(ValueError, match=message):
        load_profile(edited(old, new))


def test_all_faults_are_told_at_once(edited):
    path = edited("width = 8", "width = 0\nwidht = 8")
    with pytest.raises(ValueError, match=r"(?s)width = 0.*widht"):
        load_profile(path)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown profile 'organsim': did you mean organism\?"):
        load_profile("organsim")
    with pytest.raises(ValueError, match=r"profile file nowhere/x.toml does not exist"):
        load_profile("nowhere/x.toml")


def test_a_file_cannot_take_the_name_of_a_shipped_profile(tmp_path):
    (tmp_path / "organism.toml").write_text((PROFILE_FOLDER / "organism.toml").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"organism\.toml has the name of a shipped profile, .*rename it"):
        load_profile(tmp_path / "organism.toml")
    assert load_profile(PROFILE_FOLDER / "organism.toml").name == "organism"


def test_model_path_is_a_folder_where_the_name_can_be_none_else(tmp_path):
    organism, paper = load_profile("organism"), load_profile("paper")
    assert organism.model_path(tmp_path) == tmp_path / "data/organisms/llava_onevision"
    assert paper.model_path(tmp_path) == paper.model.name
    (tmp_path / paper.model.name).mkdir(parents=True)
    assert paper.model_path(tmp_path) == tmp_path / paper.model.name


def test_a_profile_cannot_be_changed_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load_profile(DEFAULT_PROFILE).gate.threshold = 0.1


def _keys() -> list[tuple[str, str]]:
    sections = {name: field.annotation for name, field in Profile.model_fields.items()}
    return [
        (section, key)
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for key in kind.model_fields
    ]


@pytest.mark.parametrize(("section", "key"), _keys())
def test_every_key_is_explained_and_read(section, key):
    kind = Profile.model_fields[section].annotation
    assert kind is not None
    assert kind.model_fields[key].description, f"[{section}] {key} has no docstring"
    assert any(_reads(text, section, key) for text in _sources()), f"nothing reads [{section}] {key}"


def test_a_key_of_another_section_is_no_reader():
    assert _reads("study.profile.mars.side", "mars", "side")
    assert _reads("p = profile.mars\nf(p.side, p.frames)", "mars", "side")
    assert _reads("f(**profile.head.model_dump())", "head", "lr")
    assert not _reads("profile.mars.sides", "mars", "side")
    assert not _reads("profile.mars\n", "mars", "side")
    assert not _reads("profile.head.side", "mars", "side")


def _reads(text: str, section: str, key: str) -> bool:
    """By section and key, by key in a file that names the section, or all keys of the section at once."""
    has = {name: re.search(rf"\.{name}\b", text) for name in (section, key, f"{section}.model_dump")}
    return bool((has[section] and has[key]) or has[f"{section}.model_dump"])


@cache
def _sources() -> tuple[str, ...]:
    places = [*(ROOT / "autosteer_lib").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    checks = ("profiles.py", "profile_sections.py")
    return tuple(path.read_text(encoding="utf-8") for path in places if path.name not in checks)


def test_a_section_that_is_none_is_in_no_key():
    profile = load_profile("smoke")
    assert profile.part({"head", "gate"}) == profile.model_dump_json(include={"head", "gate"})
    with pytest.raises(ValueError, match="a profile has no section haed; allowed: name, run, model"):
        profile.part({"haed"})
