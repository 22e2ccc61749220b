"""A study on published sets: what is fitted on must be whole, a test set may be missing, and no text serves twice."""

from pathlib import Path

import pytest

from autosteer_lib.benchmarks import BENCHMARKS, BenchmarkError, load, places
from autosteer_lib.benchmarks.registry import ROLES
from autosteer_lib.profiles import PROFILE_FOLDER, Profile, SetsSection, load_profile
from autosteer_lib.rehearsal.rows import TEA, WRITERS, shortened
from autosteer_lib.study import Study, outcome
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
probe_image = ["mm_safetybench/sd"]
probe_text = ["strongreject"]
probe_other = ["jailbreakv"]
probe_harmless = ["mm_vet"]
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
        "mm_safetybench",
        "mm_vet",
        "jailbreakbench",
        "harmbench",
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
    assert {p.surface for p in data.refusals} == {"vlsafe/train", "image"}
    assert {(group_of(p), p.surface) for p in data.tests} == {
        ("attack", "vlsafe"), ("attack", "figstep"), ("borderline", "xstest"), ("utility", "pope/random"),
    }  # fmt: skip
    assert len(data.left_out) == 2, "vlguard is missing, as an attack and as its harmless side"
    assert capsys.readouterr().out.count("left out: vlguard is not on this machine") == 2


def test_clips_are_left_out_where_the_model_sees_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["video_safetybench"](home / "home" / "video_safetybench")
    profile = _profile(home, '"figstep", "vlguard"]', '"figstep", "video_safetybench/benign"]')
    every = prompt_data(profile, root=home)
    clips = [p.id for p in every.tests if p.videos]
    assert clips
    seen = prompt_data(profile, root=home, clips=False)
    assert [p.id for p in seen.tests] == [p.id for p in every.tests if p.id not in clips]
    told = f"video_safetybench/benign: {len(clips)} clips, and this model sees none"
    assert told in seen.left_out
    assert f"left out: {told}" in capsys.readouterr().out


def test_what_is_fitted_on_must_be_there(home: Path) -> None:
    (home / "home/vlsafe/train2017/000000000003.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"vlsafe: train2017/000000000003\.jpg is missing"):
        benchmark_prompts(_profile(home))


def test_attacks_that_are_all_missing_stop_the_study(home: Path) -> None:
    profile = _profile(home, 'attacks = ["vlsafe", "figstep", "vlguard"]', 'attacks = ["hades", "siuo"]')
    with pytest.raises(BenchmarkError, match=r"(?s)none of the attacks .*hades is not.*siuo is not"):
        benchmark_prompts(profile)


def test_refusals_are_shared_in_proportion(home: Path) -> None:
    profile = _profile(home)
    few = profile.data.model_copy(update={"refusal_prompts": 4})
    refusals = benchmark_prompts(profile.model_copy(update={"data": few})).refusals
    assert [p.surface for p in refusals] == ["vlsafe/train"] * 3 + ["image"]


def test_one_set_for_direction_and_layer_gives_different_texts(home: Path) -> None:
    profile = _profile(home)
    texts = text_data(profile, root=home).texts
    assert (len(texts.unsafe), len(texts.safe)) == (profile.mars.texts, profile.mars.texts)
    assert len(texts.validation_safe) == profile.mars.validation
    assert not {p.text for p in texts.safe} & {p.text for p in texts.validation_safe}
    assert {p.surface for p in texts.validation_unsafe} == {"advbench"}


def test_the_probe_and_the_settings_have_prompts_of_their_own(home: Path) -> None:
    profile = _profile(home)
    probe = probe_data(profile, root=home)
    assert {p.surface for p in probe.attacks} == {"mm_safetybench/sd", "strongreject", "jailbreakv"}
    assert {p.surface for p in probe.harmless} == {"mm_vet"}
    assert {group_of(p) for p in benchmark_settings(profile)} == {"attack", "benign"}


def test_a_question_that_the_probe_knows_is_tested_in_no_other_form(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = _profile(home, 'attacks = ["vlsafe", "figstep", "vlguard"]', 'attacks = ["mm_safetybench"]')
    few = profile.safesteer.model_copy(update={"image_attacks": 2})
    profile = profile.model_copy(update={"safesteer": few})
    every = load("mm_safetybench", group="attack")
    fitted = {p.intention for p in probe_data(profile, root=home).image_attacks}
    assert {p.surface for p in every if p.intention in fitted} == {
        f"mm_safetybench/{form}" for form in ("sd", "typo", "sd_typo", "text")
    }
    data = prompt_data(profile, root=home)
    attacks = [p for p in data.tests if group_of(p) == "attack"]
    assert {p.id for p in attacks} == {p.id for p in every if p.intention not in fitted}
    assert "a fit knows what they ask: 2 of mm_safetybench/sd, 2 of" in capsys.readouterr().out


def test_no_test_asks_what_a_direction_is_found_on_or_its_layer_chosen_by(home: Path) -> None:
    rows = (home / "home/harmbench/harmbench_behaviors_text_all.csv").read_text()
    goals = next((home / "home/jailbreakbench").rglob("*harmful*.csv"))
    goals.write_text(goals.read_text().replace(f"{TEA} 0", f"{TEA.upper()} Pot 0"))  # a row's own words
    assert f"{TEA} Pot 0." in rows
    profile = _profile(home, 'validation_unsafe = ["advbench"]', 'validation_unsafe = ["harmbench/standard"]')
    sets = profile.data.sets
    assert sets
    sets = sets.model_copy(update={"attacks": ("jailbreakbench",), "benign": ("jailbreakbench",)})
    all_chosen = profile.mars.model_copy(update={"validation": 30})
    data = profile.data.model_copy(update={"sets": sets})
    found = benchmark_prompts(profile.model_copy(update={"data": data, "mars": all_chosen}))
    assert dict(found.dropped) == {"jailbreakbench": 1}
    assert [p.id for p in found.tests if group_of(p) == "attack"] == [
        f"jailbreakbench/attack/{index}" for index in (2, 3)
    ]
    assert sum(group_of(p) == "benign" for p in found.tests) == 3, "its twin asks something else"


def test_harmless_prompts_of_the_probe_are_known_by_words_and_picture(home: Path) -> None:
    profile = _profile(home, 'utility = ["pope/random"]', 'utility = ["mm_vet"]')
    more = profile.data.model_copy(update={"tests_per_surface": 12})
    profile = profile.model_copy(update={"data": more})
    probe = probe_data(profile, root=home)
    tested = [p for p in benchmark_prompts(profile).tests if group_of(p) == "utility"]
    every = load("mm_vet", group="utility")
    assert {p.id for p in tested} == {p.id for p in every} - {p.id for p in probe.harmless}
    assert tested

    same = _profile(home, 'probe_harmless = ["mm_vet"]', 'probe_harmless = ["pope/popular"]')
    assert dict(benchmark_prompts(same).dropped) == {"pope/random": 2}, "the same rows under another name"


def test_attacks_that_are_all_fitted_on_stop_the_study(home: Path) -> None:
    profile = _profile(home, 'attacks = ["vlsafe", "figstep", "vlguard"]', 'attacks = ["strongreject"]')
    with pytest.raises(
        BenchmarkError, match=r"every attack .* asks what a probe or a direction is fitted on"
    ):
        benchmark_prompts(profile)


def test_toxic_pictures_can_be_left_out_of_the_heads_training(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = _profile(home)
    study = Study.open(home / "mine.toml", out=home / "build")
    assert {p.surface for p in study.data.refusals} == {"vlsafe/train", "image"}
    readings = outcome.readings(study)
    fewer = readings["head: a third of the toxic pictures"].head_prompts(study.data.refusals)
    assert {p.surface for p in fewer} == {"vlsafe/train"}, "there is one picture, and a third of it is none"
    for reading in readings.values():
        assert len(reading.head_prompts(study.data.refusals)) >= len(fewer)
    assert "head: one constant image question" not in readings
    assert outcome.unmeasured(study) == {
        "head: one constant image question": "no two toxic pictures are asked different questions"
    }
    sets = profile.data.sets
    assert sets
    few = profile.data.model_copy(update={"sets": sets.model_copy(update={"refusals": ("vlsafe/train",)})})
    without = Study(profile.model_copy(update={"data": few}), 0, study.artefacts)
    assert "head: a third of the toxic pictures" in outcome.unmeasured(without)
    assert "head: a third of the toxic pictures" not in outcome.readings(without)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'settings_attacks = ["mssbench/chat"]',
            'settings_attacks = ["figstep"]',
            r"settings_attacks has rows of figstep \(also in attacks\)",
        ),
        (
            'settings_benign = ["mssbench/chat"]',
            'settings_benign = ["vlguard/safe_image"]',
            r"settings_benign has rows of vlguard \(also in attacks\), vlguard \(also in benign\)",
        ),
        (
            'settings_attacks = ["mssbench/chat"]',
            'settings_attacks = ["mm_safetybench/typo"]',
            r"settings_attacks has rows of mm_safetybench \(also in probe_image\)",
        ),
        (
            'validation_unsafe = ["advbench"]',
            'validation_unsafe = ["figstep"]',
            r"validation_unsafe has rows of figstep \(also in attacks\)",
        ),
        (
            'text_unsafe = ["malicious_instruct"]',
            'text_unsafe = ["vlguard/unsafe_image"]',
            r"text_unsafe has rows of vlguard \(also in attacks\)",
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
