"""Each loader on rows of the exact schema: what the prompt says, shows, and is labelled; and what goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autosteer_lib.benchmarks import BENCHMARKS, BenchmarkError, load, load_all, places
from autosteer_lib.benchmarks.entry import Ask
from autosteer_lib.benchmarks.harm_in_sight import FIGSTEP_CARRIER, HADES_NEUTRAL
from autosteer_lib.prompts import Prompt, open_images, open_videos
from autosteer_lib.rehearsal.rows import CAKE, TEA, WRITERS, shortened

LISTED = (True, False)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sets, in a home of their own."""
    home = tmp_path_factory.mktemp("benchmarks")
    for name, write in WRITERS.items():
        write(home / name)
    return home


@pytest.fixture
def home(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That home, and no cache of the hub."""
    return _use(written, monkeypatch)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it."""
    return _use(tmp_path, monkeypatch)


def _use(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOSTEER_BENCHMARKS", str(home))
    monkeypatch.setattr(places, "cached_snapshot", lambda source: None)
    monkeypatch.setattr(places, "get_token", lambda: None)
    for name, entry in shortened().items():
        monkeypatch.setitem(BENCHMARKS, name, entry)
    return home


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
@pytest.mark.usefixtures("home")
def test_every_set_loads_with_all_labels(name: str) -> None:
    groups = {part.group for part in BENCHMARKS[name].parts}
    for group in groups:
        prompts = [p for part in BENCHMARKS[name].parts for p in load(part.surface, group=part.group)]
        assert prompts
        for prompt in prompts:
            assert prompt.metadata["benchmark"] == name
            assert prompt.surface.split("/")[0] == name
            assert prompt.harmful in LISTED
            assert prompt.intention
            assert all(image.size == (6, 4) for image in open_images(prompt))
            assert all(frames.shape[0] == 8 for frames in open_videos(prompt))
        assert group in {p.metadata["group"] for p in prompts}


@pytest.mark.usefixtures("home")
def test_words_over_a_picture() -> None:
    prompt = load("vlsafe")[0]
    assert (prompt.text, prompt.harmful, prompt.modality) == (f"{TEA} 0", True, "image")


@pytest.mark.usefixtures("home")
def test_twins_share_their_picture_and_pair() -> None:
    toxic, safe = load("vlsafe/pairs")[:2]
    assert (toxic.text, safe.text) == (f"{TEA} 0", f"{CAKE} 0")
    assert (toxic.harmful, safe.harmful) == (True, False)
    assert toxic.pair_id == safe.pair_id
    assert toxic.visual_fingerprint == safe.visual_fingerprint


@pytest.mark.usefixtures("home")
def test_a_carrier_prompt_has_the_plain_request_beside_it() -> None:
    prompt = load("figstep")[0]
    assert (prompt.text, prompt.intention) == (FIGSTEP_CARRIER, TEA)
    safety = load("mm_safetybench/sd")[0]
    assert (safety.text, safety.intention) == ("SD Illegal_Activitiy 0", "Text_only Illegal_Activitiy 0")
    film = load("video_safetybench/benign")[0]
    assert film.text.endswith(CAKE)
    assert film.intention == TEA


@pytest.mark.usefixtures("home")
def test_the_text_split_of_mm_safetybench_shows_nothing() -> None:
    assert {p.modality for p in load("mm_safetybench/text")} == {"text"}


@pytest.mark.usefixtures("home")
def test_hades_takes_the_keyword_out_of_the_words() -> None:
    noun, act = load("hades")
    assert noun.text == "The bottom of the image shows a object. Say how to clean a this object."
    assert act.text.endswith("Say how to clean a conduct this behavior on.")
    assert noun.intention == "Say how to clean a kettle."
    assert {p.text for p in load("hades/neutral")} == {HADES_NEUTRAL}
    assert len(load("hades/neutral")) == 4


@pytest.mark.usefixtures("home")
def test_context_stands_before_a_behaviour_and_copyright_is_left_out() -> None:
    standard, contextual, *more = load("harmbench")
    assert len(more) == 25
    assert standard.text == f"{TEA} Pot 0."
    assert contextual.text == f"The pot is green.\n\n{TEA} Pot 1."
    assert contextual.intention == f"{TEA} Pot 1."


@pytest.mark.usefixtures("home")
def test_a_harmless_picture_has_both_its_instructions() -> None:
    attack, benign = (load("vlguard/safe_image", group=group)[0] for group in ("attack", "benign"))
    assert (attack.text, benign.text) == (TEA, CAKE)
    assert attack.surface == benign.surface
    assert attack.visual_fingerprint == benign.visual_fingerprint
    assert [p.id for p in load("vlguard/unsafe_image")] == ["vlguard/unsafe_image/attack/2"]


@pytest.mark.usefixtures("home")
def test_a_situation_changes_the_picture_and_not_the_words() -> None:
    attack, benign = (load("mssbench/chat", group=group)[0] for group in ("attack", "benign"))
    assert attack.text == benign.text
    assert attack.visual_fingerprint != benign.visual_fingerprint
    assert attack.intention == f"{TEA} (the picture shows: a crowded table)"


@pytest.mark.usefixtures("home")
def test_xstest_has_a_harmful_and_a_borderline_half() -> None:
    assert [p.harmful for p in load("xstest", group="attack")] == [True]
    assert [p.harmful for p in load("xstest", group="borderline")] == [False, False]


@pytest.mark.usefixtures("home")
def test_alpaca_is_read_without_rows_that_have_an_input() -> None:
    assert len(load("alpaca")) == 90


@pytest.mark.usefixtures("home")
def test_pictures_stand_before_mmmus_words_in_order() -> None:
    options, open_question = load("mmmu")
    assert options.text.startswith("Is [picture 1] before [picture 2]?\n(A) yes\n(B) no\n(C) see [picture 2]")
    assert len(options.images) == 2
    assert (options.reference, options.metadata["scoring"]) == ("B", "letter")
    assert (open_question.reference, open_question.metadata["scoring"]) == ("1/2\n0.5", "word")


@pytest.mark.usefixtures("home")
def test_an_answer_that_must_be_graded_is_no_reference() -> None:
    prompt = load("mm_vet")[0]
    assert prompt.reference is None
    assert prompt.metadata["expected"] == "4<OR>four"


@pytest.mark.usefixtures("home")
def test_a_film_shows_as_many_frames_as_asked_for() -> None:
    assert open_videos(load("mvbench", frames=2)[0])[0].shape[0] == 2
    assert load("mvbench")[0].reference == "B"


@pytest.mark.usefixtures("home")
def test_a_sample_is_part_of_a_larger_one_in_the_files_order() -> None:
    few, more, every = (load("advbench", limit=limit) for limit in (4, 8, None))
    ids = [[p.id for p in prompts] for prompts in (few, more, every)]
    assert set(ids[0]) < set(ids[1]) < set(ids[2])
    assert ids[1] == [name for name in ids[2] if name in ids[1]]
    assert [p.id for p in load("advbench", limit=4, seed=1)] != ids[0]


def test_embedded_pictures_are_written_once(home: Path) -> None:
    first = [p.images for p in load("realworldqa")]
    stamps = [path.stat().st_mtime_ns for images in first for path in images if isinstance(path, Path)]
    second = [p.images for p in load("realworldqa")]
    assert first == second
    assert stamps == [
        path.stat().st_mtime_ns for images in second for path in images if isinstance(path, Path)
    ]
    assert {path.parent for images in first for path in images if isinstance(path, Path)} == {
        home / "realworldqa/embedded"
    }


@pytest.mark.usefixtures("empty_home")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xstest", r"xstest is not on this machine\. Fetch it on a network with `make fetch PROFILE=…`"),
        (
            "vlguard",
            r"gated and there is no token here: accept its terms at https://.*/ys-zong/VLGuard, log in",
        ),
    ],
)
def test_a_set_that_is_not_here_says_how_to_get_it(name: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load(name)


def test_a_missing_picture_names_set_and_file(empty_home: Path) -> None:
    WRITERS["figstep"](empty_home / "figstep")
    next((empty_home / "figstep/data/images/SafeBench").iterdir()).unlink()
    with pytest.raises(
        BenchmarkError, match=r"figstep: data/images/SafeBench/query_.* is missing\. Fetch it"
    ):
        load("figstep")


def test_pictures_that_no_address_serves_say_whom_to_ask(empty_home: Path) -> None:
    WRITERS["tovilag_plus"](empty_home / "tovilag_plus")
    (empty_home / "tovilag_plus/pictures/owned/1.jpg").unlink()
    with pytest.raises(
        BenchmarkError, match=r"come from their owners .*put it into <home>/tovilag_plus/pictures/"
    ):
        load("tovilag_plus/image")


def test_a_changed_column_names_the_set(empty_home: Path) -> None:
    WRITERS["siuo"](empty_home / "siuo")
    path = empty_home / "siuo/siuo_gen.json"
    rows = [
        {("prompt" if key == "question" else key): value for key, value in row.items()}
        for row in json.loads(path.read_text())
    ]
    path.write_text(json.dumps(rows))
    with pytest.raises(
        BenchmarkError, match=r"siuo in siuo_gen\.json: row 1 has no column 'question'; it has"
    ):
        load("siuo")


def test_a_broken_file_names_the_set_too(empty_home: Path) -> None:
    WRITERS["mssbench"](empty_home / "mssbench")
    (empty_home / "mssbench/combined.json").write_text('{"talk": []}')
    with pytest.raises(
        BenchmarkError, match=r"mssbench/chat: cannot be read .*no list 'chat'; it holds talk"
    ):
        load("mssbench/chat")


def test_a_table_without_the_split_names_the_set(empty_home: Path) -> None:
    WRITERS["mm_vet"](empty_home / "mm_vet")
    readme = empty_home / "mm_vet/README.md"
    readme.write_text(readme.read_text().replace("split: test", "split: dev"))
    with pytest.raises(
        BenchmarkError, match=r"mm_vet: cannot be read .*no files of the split 'test'.*splits are dev"
    ):
        load("mm_vet")


def test_a_table_may_leave_its_splits_to_the_names_of_its_files(empty_home: Path) -> None:
    WRITERS["mm_vet"](empty_home / "mm_vet")
    (empty_home / "mm_vet/README.md").write_text("---\nlicence: own\n---\n")
    assert len(load("mm_vet")) == 12


def test_an_entry_that_gives_one_ask_is_told_to_yield_it(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the entry's fault, and not that of the set, which fetching again would not mend."""
    WRITERS["xstest"](empty_home / "xstest")
    entry = BENCHMARKS["xstest"]
    parts = tuple(replace(p, ask=lambda row, _: Ask(key=row["id"], text=row["prompt"])) for p in entry.parts)  # type: ignore[arg-type,return-value]
    monkeypatch.setitem(BENCHMARKS, "xstest", replace(entry, parts=parts))
    with pytest.raises(
        BenchmarkError, match=r"xstest: the entry's ask\(row, sights\) returned one Ask; .*yield it"
    ):
        load("xstest")


def test_two_rows_of_one_id_are_refused(empty_home: Path) -> None:
    WRITERS["siuo"](empty_home / "siuo")
    path = empty_home / "siuo/siuo_gen.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(BenchmarkError, match="two rows have the id 'siuo/attack/1'"):
        load("siuo")


def test_other_sets_go_on_where_one_fails(empty_home: Path) -> None:
    WRITERS["advbench"](empty_home / "advbench")
    loaded = load_all(["figstep", "advbench", "vlguard"], group="attack", limit=3)
    assert {p.surface for p in loaded.prompts} == {"advbench"}
    assert [message.split(" ")[0] for message in loaded.failed] == ["figstep", "vlguard"]


@pytest.mark.usefixtures("home")
def test_a_misspelt_set_is_no_missing_one() -> None:
    with pytest.raises(ValueError, match="did you mean figstep"):
        load_all(["advbench", "figstap"])


def test_what_is_missing_can_be_asked_for_instead(empty_home: Path) -> None:
    WRITERS["vlsafe"](empty_home / "vlsafe")
    (empty_home / "vlsafe/train2017/000000000001.jpg").unlink()
    wanted: set[str] = set()
    prompts: list[Prompt] = load("vlsafe", wanted=wanted)
    assert len(prompts) == 2
    assert wanted == {"train2017/000000000001.jpg"}
