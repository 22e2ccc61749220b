"""A study on published sets: what is fitted on must be whole, a test set may be missing, and no text serves twice."""

from pathlib import Path

import pytest

from autosteer_lib.benchmarks import BENCHMARKS, BenchmarkError, load, places
from autosteer_lib.benchmarks.registry import ROLES
from autosteer_lib.profiles import PROFILE_FOLDER, Profile, SetsSection, load_profile
from autosteer_lib.rehearsal.rows import WRITERS, shortened
from autosteer_lib.study.benchmark_data import benchmark_prompts, benchmark_settings
from autosteer_lib.study.probe_data import probe_data
from autosteer_lib.study.prompt_data import group_of, prompt_data
from autosteer_lib.study.text_data import text_data

SETS = """[data.sets]
pairs = ["vlsafe/pairs"]
refusals = ["vlsafe/train", "tovilag_plus/train"]
attacks = ["vlsafe", "figstep", "vlguard"]
benign = ["vlguard"]
borderline = ["xstest"]
utility = ["pope/random"]
text_unsafe = ["malicious_instruct"]
text_safe = ["alpaca"]
validation_unsafe = ["advbench"]
validation_safe = ["alpaca"]
probe_image = ["hades/neutral"]
probe_text = ["strongreject"]
probe_other = ["jailbreakv"]
probe_harmless = ["pope/popular"]
settings_attacks = ["mssbench/chat"]
settings_benign = ["mssbench/chat"]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOSTEER_BENCHMARKS", str(tmp_path / "home"))
    monkeypatch.setattr(places, "cached_snapshot", lambda source: None)
    for name, entry in shortened().items():
        monkeypatch.setitem(BENCHMARKS, name, entry)
    for name in (
        "vlsafe",
        "tovilag_plus",
        "figstep",
        "xstest",
        "pope",
        "malicious_instruct",
        "alpaca",
        "advbench",
        "hades",
        "strongreject",
        "jailbreakv",
        "mssbench",
    ):
        WRITERS[name](tmp_path / "home" / name)
    return tmp_path


def _profile(folder: Path, old: str = "", new: str = "") -> Profile:
    """The smoke profile on published sets, with one text of its [data.sets] replaced."""
    text = (PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8")
    text = text.replace('source = "organism"', 'source = "benchmarks"').replace("sets = false\n", "")
    text = text.replace('neutral_words = "task"', 'neutral_words = ["Describe the image."]')
    text = text.replace('decides = "truth"', 'decides = "coin"')
    text = text.replace("[sas]", f"{SETS.replace(old, new)}\n[sas]")
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path)


def test_fit_and_test_prompts_come_from_the_sets_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prompt_data(_profile(home), root=home)
    assert len(data.pairs) == 12
    assert {p.surface for p in data.refusals} == {"vlsafe/train", "tovilag_plus/train"}
    assert {(group_of(p), p.surface) for p in data.tests} == {
        ("attack", "vlsafe"), ("attack", "figstep"), ("borderline", "xstest"), ("utility", "pope/random"),
    }  # fmt: skip
    assert len(data.left_out) == 2, "vlguard is missing, as an attack and as its harmless side"
    assert capsys.readouterr().out.count("left out: vlguard is not on this machine") == 2


def test_what_is_fitted_on_must_be_there(home: Path) -> None:
    (home / "home/vlsafe/train2017/000000000003.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"vlsafe: train2017/000000000003\.jpg is missing"):
        benchmark_prompts(_profile(home))


def test_attacks_that_are_all_missing_stop_the_study(home: Path) -> None:
    profile = _profile(
        home, 'attacks = ["vlsafe", "figstep", "vlguard"]', 'attacks = ["mm_safetybench", "siuo"]'
    )
    with pytest.raises(BenchmarkError, match=r"(?s)none of the attacks .*mm_safetybench is not.*siuo is not"):
        benchmark_prompts(profile)


def test_refusals_are_shared_in_proportion(home: Path) -> None:
    profile = _profile(home)
    few = profile.data.model_copy(update={"refusal_prompts": 4})
    refusals = benchmark_prompts(profile.model_copy(update={"data": few})).refusals
    assert [p.surface for p in refusals] == ["vlsafe/train"] * 3 + ["tovilag_plus/train"]


def test_one_set_for_direction_and_layer_gives_different_texts(home: Path) -> None:
    profile = _profile(home)
    texts = text_data(profile, root=home).texts
    assert (len(texts.unsafe), len(texts.safe)) == (profile.mars.texts, profile.mars.texts)
    assert len(texts.validation_safe) == profile.mars.validation
    assert not {p.text for p in texts.safe} & {p.text for p in texts.validation_safe}
    assert {p.surface for p in texts.validation_unsafe} == {"advbench"}


def test_the_probe_and_the_settings_have_prompts_of_their_own(home: Path) -> None:
    profile = _profile(
        home, 'attacks = ["vlsafe", "figstep", "vlguard"]', 'attacks = ["hades/neutral", "figstep"]'
    )
    probe = probe_data(profile, root=home)
    assert {p.surface for p in probe.attacks} == {"hades/neutral", "strongreject", "jailbreakv"}
    assert {p.surface for p in probe.harmless} == {"pope/popular"}
    left = [p for p in benchmark_prompts(profile).tests if p.surface == "hades/neutral"]
    every = load("hades/neutral", group="attack")
    assert {p.id for p in left} == {p.id for p in every} - {p.id for p in probe.attacks}
    assert {group_of(p) for p in benchmark_settings(profile)} == {"attack", "benign"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'settings_attacks = ["mssbench/chat"]',
            'settings_attacks = ["figstep"]',
            "settings_attacks has figstep, which another list has too",
        ),
        ("figstep", "figstap", r"\[data\.sets\] attacks: no benchmark 'figstap': did you mean figstep"),
        (
            'utility = ["pope/random"]',
            'utility = ["xstest"]',
            r"\[data\.sets\] utility: 'xstest' has no prompts",
        ),
        ("borderline =", "bordrline =", r"\[data\.sets\] bordrline: no such key; did you mean borderline"),
        ("\nbenign =", "\n# benign =", r"\[data\.sets\] benign: missing; a profile states every key"),
        ('pairs = ["vlsafe/pairs"]', "pairs = []", r"\[data\.sets\] pairs = \[\]"),
        (SETS, "sets = false", r'source = \'benchmarks\' with sets = false; "benchmarks" needs the table'),
    ],
)
def test_faults_in_the_list_of_sets(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _profile(tmp_path, old, new)


def test_every_role_is_a_key_that_is_explained() -> None:
    assert set(ROLES) == set(SetsSection.model_fields)
    assert all(field.description for field in SetsSection.model_fields.values())


@pytest.mark.parametrize("name", ["small", "paper"])
def test_the_networked_profiles_name_published_sets(name: str) -> None:
    data = load_profile(name).data
    assert data.source == "benchmarks"
    assert data.sets
    assert data.sets.pairs == ("vlsafe/pairs",)
    assert data.sets.text_unsafe == ("malicious_instruct",)
