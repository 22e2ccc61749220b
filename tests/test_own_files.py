"""Prompts and a model of one's own: every slip is named with its file and line, before a run begins."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from autosteer_lib import reproduce
from autosteer_lib.ingredients import check_model
from autosteer_lib.needs import Machine
from autosteer_lib.plan import plan
from autosteer_lib.profiles import PROFILE_FOLDER, Profile, load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.rehearsal.films import film
from autosteer_lib.rehearsal.tiny_models import BUILDERS
from autosteer_lib.study.own_files import check_own_files
from autosteer_lib.study.prompt_files import read_prompts

HERE = Machine(free_gigabytes=500.0, token=False, accelerator="", accelerator_gigabytes=0.0, offline=True)
Row = dict[str, object]
Files = dict[str, list[Row]]


def _twins(number: int, **fields: object) -> list[Row]:
    return [{"text": f"{word} {number}", "harmful": word == "bad", **fields} for word in ("bad", "good")]


def _files() -> Files:
    """The least that a run takes."""
    tests = [
        {**row, "surface": "image", "group": "attack" if row["harmful"] else "benign", "images": ["red.png"]}
        for row in _twins(40)
    ]
    return {
        "pairs": [row for i in range(4) for row in _twins(i, pair_id=str(i), images=["red.png"])],
        "refusals": [_twins(10)[0], _twins(11)[0]],
        "tests": [
            *tests,
            {"text": "film", "videos": ["clips/film.mp4"], "surface": "video", "harmful": True},
        ],
        "texts": [
            {**row, "group": group}
            for group, at in (("direction", 20), ("validation", 21))
            for row in _twins(at)
        ],
        "probe": [
            {"text": f"{group} {i}", "group": group, "harmful": group != "harmless", "images": ["red.png"]}
            for group in ("image", "text", "other", "harmless")
            for i in range(2)
        ],
        "validation": [
            {**row, "surface": "image", "group": "attack" if row["harmful"] else "benign"}
            for row in _twins(30)
        ],
    }


def _write(root: Path, files: Files) -> Path:
    folder = root / "mine"
    (folder / "clips").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    film(folder / "clips" / "film.mp4", levels=range(0, 200, 50))
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def _profile() -> Profile:
    profile = load_profile("smoke")
    data = profile.data.model_copy(update={"source": "files", "folder": "mine"})
    mars = profile.mars.model_copy(update={"neutral_words": ("describe this",)})
    return profile.model_copy(update={"data": data, "mars": mars})


@pytest.mark.usefixtures("as_a_user")
def test_files_without_fault_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, _files())
    files = {file.name: file for file in check_own_files(_profile(), root=tmp_path)}
    assert files["pairs.jsonl"].wanted == {"pairs": 16}
    assert files["pairs.jsonl"].found == {"pairs": 4}
    assert files["tests.jsonl"].found == {"attack/image": 1, "benign/image": 1, "attack/video": 1}
    assert files["probe.jsonl"].found == {"image": 2, "text": 2, "other": 2, "harmless": 2}
    assert list(files) == [f"{name}.jsonl" for name in _files()]


def _changed(name: str, **fields: object) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[name][0].update(fields)

    return change


def _unlabelled(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        del files[name][0]["harmful"]

    return change


def _without(name: str, value: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[name] = [row for row in files[name] if row.get("group") != value]

    return change


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _changed("tests", text=None),
            r"tests\.jsonl line 1: text is null, and must be a string; write it in quotes",
        ),
        (_changed("tests", intention=None), "intention is null, and must be a string; leave it out"),
        (_changed("tests", id=3), "id is 3, and must be a string; write it in quotes"),
        (_changed("tests", id="tests/2"), "line 2: id 'tests/2' is that of line 1 too"),
        (
            _changed("tests", harmful="false"),
            'harmful is "false"; allowed are true and false, without quotes',
        ),
        (
            _changed("tests", harmful=False),
            r"an attack is harmful, .*'tests/1' \(attack, harmful=False\), 1 in all",
        ),
        (
            _changed("refusals", harmful=False),
            r"refusals\.jsonl: all of them are toxic, received 'refusals/1'",
        ),
        (_changed("tests", image="red.png"), "unknown fields image: did you mean images"),
        (_changed("tests", images=[3]), r"images is \[3\]; give a list of paths"),
        (
            _changed("tests", images=["blue.png"]),
            "images names blue.png, which does not exist in .*mine; paths start",
        ),
        (_changed("tests", videos=["b.mp4"]), "videos names b.mp4, which does not exist"),
        (_changed("tests", text=" ", images=[]), r"tests\.jsonl line 1: prompt 'tests/1' is empty"),
        (_changed("tests", surface=""), r"tests\.jsonl: 'tests/1' \(1 in all\) have no surface"),
        (
            _changed("tests", surface="words"),
            "attacks are of surface video, words, benign prompts of image; at least",
        ),
        (
            _changed("tests", group="harmful"),
            "group 'harmful'; allowed are attack, benign, borderline, utility",
        ),
        (
            _changed("pairs", pair_id="1"),
            "'pairs/1' and 'pairs/3' of pair_id '1' are both labelled harmful=True",
        ),
        (_changed("probe", harmful=None), r"probe\.jsonl line 1: harmful is null"),
        (_changed("tests", frames=True, videos=["clips/film.mp4"]), "frames=True; give a whole number"),
        (
            _changed("validation", text="bad 10", images=[]),
            r"validation.*'validation/1'.*which refusals\.jsonl asks too",
        ),
        (_without("validation", "benign"), r"validation\.jsonl has no row of group benign"),
        (_without("probe", "harmless"), r"probe\.jsonl has fewer than 2 rows of group harmless"),
        (_without("texts", "validation"), r"texts\.jsonl: validation_unsafe is empty"),
        *(
            (
                _unlabelled(name),
                rf"{name}\.jsonl: an attack is harmful, .* '{name}/1' \(attack, harmful=None\), 1 in all",
            )
            for name in ("tests", "validation")
        ),
        (
            lambda files: files["texts"].append({"text": "no label", "group": "direction"}),
            r"texts\.jsonl: 'texts/5' \(1 in all\) do not say whether they are harmful.*; write \"harmful\": true",
        ),
        (lambda files: files.update(tests=[]), r"mine/tests\.jsonl holds no prompt; give at least one line"),
        (
            lambda files: files.pop("texts") and None,
            r"mine/texts\.jsonl does not exist \(in .*mine there are pairs",
        ),
    ],
)
def test_each_slip_is_named(tmp_path: Path, change: Callable[[Files], None], message: str) -> None:
    files = _files()
    change(files)
    _write(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        check_own_files(_profile(), root=tmp_path)


def test_all_files_are_looked_at_and_all_faults_told(tmp_path: Path) -> None:
    folder = _write(tmp_path, _files())
    (folder / "red.png").write_text("no picture")
    (folder / "clips" / "film.mp4").write_text("no film")
    (folder / "probe.jsonl").unlink()
    with pytest.raises(ValueError, match="cannot be used") as caught:
        check_own_files(_profile(), root=tmp_path)
    told = str(caught.value)
    assert "cannot read image" in told
    assert "probe.jsonl does not exist" in told


def test_what_is_no_picture_and_no_film_is_named(tmp_path: Path) -> None:
    files = _files()
    files["refusals"][0]["images"] = ["text.png"]
    folder = _write(tmp_path, files)
    (folder / "text.png").write_text("no picture")
    (folder / "clips" / "film.mp4").write_text("no film")
    with pytest.raises(
        ValueError, match=r"'refusals/1': text\.png is no picture that Pillow can read"
    ) as caught:
        check_own_files(_profile(), root=tmp_path)
    assert "prompt 'tests/3': video" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": "b"', r"t\.jsonl line 2: no JSON \(.*\); write one object a line"),
        (b'[{"text": "a"}]', "line 1: a list; write one object a line"),
        (b'"a"', "line 1: a str; write one object a line"),
        ('{"text": "é"}'.encode("latin-1"), r"t\.jsonl is not UTF-8 \(.* at byte 10\); save it as UTF-8"),
        (b"\n".join([b'{"prompt": "a"}'] * 10), r"line 8: unknown fields prompt: .*\nand 2 lines more"),
        (b"\n\n", "holds no prompt"),
    ],
)
def test_what_is_no_list_of_prompts_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "t.jsonl", groups=["benign"])


def test_a_text_may_hold_any_character_and_a_file_a_byte_order_mark(tmp_path: Path) -> None:
    texts = ["two\u2028lines", "half\x85an hour", "é"]
    rows = "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert [p.text for p in read_prompts(tmp_path / "t.jsonl", groups=["benign"])] == texts


def _own(tmp_path: Path, *, model: str, name: str = "own") -> Path:
    """A profile file with a model and prompts of one's own."""
    text = (PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8")
    for theirs, ours in (
        ('"data/organisms/llava_onevision"', json.dumps(model)),
        ('source = "organism"\nfolder = false', f'source = "files"\nfolder = "{tmp_path / "mine"}"'),
        ('neutral_words = "task"', 'neutral_words = ["describe this"]'),
        ('decides = "truth"', 'decides = "coin"'),
        ("disk_gb = 1.0", "disk_gb = 0.001"),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS["qwen2_5_vl"](tmp_path_factory.mktemp("model"), seed=0)


def test_a_plan_says_what_is_here_of_ones_own(tmp_path: Path, checkpoint: Path) -> None:
    _write(tmp_path, _files())
    text = "\n".join(plan(load_profile(_own(tmp_path, model=str(checkpoint))), here=HERE))
    assert "a qwen2_5_vl checkpoint, whole" in text
    assert "pairs.jsonl       pairs               16         4" in text
    assert "ship with the repository" not in text
    (tmp_path / "mine" / "pairs.jsonl").unlink()
    text = "\n".join(plan(load_profile(_own(tmp_path, model=str(tmp_path / "lost"))), here=HERE))
    assert "the model cannot be loaded:" in text
    assert "pairs.jsonl does not exist" in text


def test_the_driver_starts_nothing_on_a_faulty_file(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _write(tmp_path, _files())
    (folder / "validation.jsonl").unlink()
    assert reproduce.main(["--profile", str(_own(tmp_path, model=str(checkpoint), name="never-run"))]) == 2
    told = capsys.readouterr().err
    assert told.startswith("nothing was started: the prompts in")
    assert "mine/validation.jsonl does not exist" in told
    assert not (repository_root() / "build" / "never-run").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda folder: shutil.rmtree(folder), ValueError, "name = .*: there is no folder .*model; give one"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "has no weights"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2"}'),
            ValueError,
            "no class of this",
        ),
    ],
)
def test_a_model_of_ones_own_is_looked_at_first(
    tmp_path: Path,
    checkpoint: Path,
    change: Callable[[Path], object],
    error: type[Exception],
    message: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    profile = load_profile(_own(tmp_path, model=str(folder)))
    assert check_model(profile, root=tmp_path) == "qwen2_5_vl"
    change(folder)
    with pytest.raises(error, match=message):
        check_model(profile, root=tmp_path)


def test_a_lost_folder_with_one_slash_is_not_looked_for_on_a_network(tmp_path: Path) -> None:
    profile = load_profile(_own(tmp_path, model="ckpt/lost-model"))
    with pytest.raises(ValueError, match=r"neither a folder .*offline = true forbids fetching"):
        check_model(profile, root=tmp_path)
