"""A film in a prompt is worth its frames: hashed, encoded, read from JSON lines and drawn as they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from autosteer_lib.encoding import batches, encode
from autosteer_lib.models import MLLM
from autosteer_lib.plotting import answers
from autosteer_lib.profiles import Profile, load_profile
from autosteer_lib.prompts import Prompt, VideoLike, clip_shapes, open_videos
from autosteer_lib.rehearsal.films import STEP, film, reds
from autosteer_lib.rehearsal.tiny_models import SIDE
from autosteer_lib.study.gap import picture_of
from autosteer_lib.study.prompt_data import prompt_data
from autosteer_lib.videos import VideoFile, read_video


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """A film of twelve frames of rising red."""
    return film(tmp_path / "twelve.mp4", [STEP * i for i in range(12)])


def test_a_file_and_its_frames_have_one_fingerprint(twelve: Path) -> None:
    on_disk = Prompt(text="what is this ?", videos=(VideoFile(twelve, frames=4),))
    in_memory = replace(on_disk, videos=(read_video(twelve, frames=4),))
    assert on_disk.fingerprint == in_memory.fingerprint
    assert on_disk.visual_fingerprint == in_memory.visual_fingerprint
    assert replace(on_disk, videos=(VideoFile(twelve, frames=6),)).fingerprint != on_disk.fingerprint
    film(twelve, [0] * 12)
    assert on_disk.fingerprint != in_memory.fingerprint, "a replaced file is another film"


def test_a_film_is_opened_only_when_it_is_needed(tmp_path: Path) -> None:
    prompt = Prompt(text="?", videos=(VideoFile(tmp_path / "later.mp4", frames=2),))
    film(tmp_path / "later.mp4", [0, STEP])
    (clip,) = open_videos(prompt)
    assert reds(clip) == [0, 1]
    assert clip_shapes(prompt) == (clip.shape,)


def test_a_file_is_encoded_as_its_frames_are(tiny: MLLM, twelve: Path) -> None:
    file = Prompt(text="what is this ?", videos=(VideoFile(twelve, frames=4),))
    frames = replace(file, videos=(read_video(twelve, frames=4),))
    one, other = encode(tiny, [file]).inputs, encode(tiny, [frames]).inputs
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_films_of_any_length_share_a_batch(tiny: MLLM, tmp_path: Path, twelve: Path) -> None:
    short = film(tmp_path / "short.mp4", [0, STEP])
    array = np.zeros((4, SIDE // 2, SIDE, 3), dtype=np.uint8)
    clips: list[VideoLike] = [
        VideoFile(twelve, frames=4),
        array,
        VideoFile(short, frames=4),
        VideoFile(twelve, frames=2),
    ]
    prompts = [Prompt(id=str(n), text="what ?", videos=(clip,)) for n, clip in enumerate(clips)]
    assert [rows for rows, _ in batches(tiny, prompts, batch_size=8)] == [[0, 1, 2], [3]]


def test_a_missing_film_is_named_before_anything_is_computed(
    tiny: MLLM, twelve: Path, tmp_path: Path
) -> None:
    prompts = [
        Prompt(id="there", text="?", videos=(VideoFile(twelve),)),
        Prompt(id="gone", text="?", videos=(VideoFile(tmp_path / "gone.mp4"),)),
    ]
    with pytest.raises(ValueError, match=r"prompt 'gone': video .*gone\.mp4 does not exist"):
        next(batches(tiny, prompts, batch_size=1))


def _sets(root: Path, **fields: object) -> Profile:
    """A profile whose prompts come from files; `fields` are those of its one test prompt."""
    folder = root / "sets"
    (folder / "clips").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "clips/a.mp4"):
        (folder / name).touch()  # what a line names must exist; none is decoded here
    pairs: list[dict[str, object]] = [
        {"text": f"{harm} {i}", "harmful": harm, "pair_id": str(i)}
        for i in range(2)
        for harm in (True, False)
    ]
    rows = {"pairs": pairs, "refusals": pairs[:1], "tests": [{"text": "what ?", "harmful": True, **fields}]}
    for name, listed in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in listed))
    profile = load_profile("smoke")
    data = profile.data.model_copy(update={"source": "files", "folder": "sets"})
    return profile.model_copy(update={"data": data})


def test_json_lines_may_name_films(tmp_path: Path) -> None:
    data = prompt_data(_sets(tmp_path, videos=["clips/a.mp4", "b.mp4"], frames=4), root=tmp_path)
    folder = tmp_path / "sets"
    assert data.tests[0].videos == (VideoFile(folder / "clips/a.mp4", 4), VideoFile(folder / "b.mp4", 4))
    assert data.tests[0].modality == "video"


def test_eight_frames_are_shown_unless_said(tmp_path: Path) -> None:
    data = prompt_data(_sets(tmp_path, videos=["a.mp4"]), root=tmp_path)
    assert data.tests[0].videos == (VideoFile(tmp_path / "sets/a.mp4", frames=8),)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 8}, "frames = 8 without videos; leave it out"),
        ({"videos": "a.mp4"}, r"videos is 'a\.mp4'; give a list of paths, as in \[\"a\.mp4\"\]"),
        ({"images": "a.png"}, r"images is 'a\.png'; give a list"),
        ({"videos": ["a.mp4"], "frames": 0}, r"frames=0; give a whole number"),
        ({"video": ["a.mp4"]}, r"unknown fields video: did you mean videos\? allowed: .*frames.*videos"),
        ({"videos": ["c.mp4"]}, r"videos names c\.mp4, which does not exist"),
    ],
)
def test_faulty_lines_are_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"tests\.jsonl line 1: {message}"):
        prompt_data(_sets(tmp_path, **fields), root=tmp_path)


def test_figures_show_the_whole_film(twelve: Path) -> None:
    """A gallery has room for four frames of a film."""
    picture = picture_of(Prompt(text="what ?", videos=(VideoFile(twelve, frames=12),)))
    row = {"surface": "video", "prompt": "what ?", "answer": "a sun", "verdict": "safe", "picture": picture}
    (axes,) = answers.prompt_gallery(pd.DataFrame([row])).axes
    assert reds(np.stack([np.asarray(image.get_array()) for image in axes.images])) == [1, 4, 7, 10]


def test_figures_open_picture_files(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    picture = picture_of(Prompt(text="what ?", images=(tmp_path / "red.png",)))
    assert isinstance(picture, Image.Image)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert picture_of(Prompt(text="what ?")) is None
