"""A prompt says what it is made of, and its fingerprint is of what the model sees."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.prompts import Prompt, check_pictures_exist, open_images, prompts_of
from autosteer_lib.videos import VideoFile

RED = Image.new("RGB", (8, 8), "red")
CLIP = np.zeros((2, 4, 4, 3), dtype=np.uint8)


def test_a_prompt_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt 'p7' is empty.*give at least one of the three"):
        Prompt(id="p7", text="  ")


def test_a_picture_alone_is_a_prompt() -> None:
    assert Prompt(text="", images=(RED,)).images == (RED,)


@pytest.mark.parametrize(
    ("shown", "modality"),
    [
        ({}, "text"),
        ({"images": (RED,)}, "image"),
        ({"videos": (CLIP,)}, "video"),
        ({"images": (RED,), "videos": (VideoFile(Path("a.mp4")),)}, "video"),
    ],
)
def test_the_modality_is_that_of_what_is_shown(shown: dict[str, Any], modality: str) -> None:
    assert Prompt(text="what is this ?", **shown).modality == modality


def test_labels_do_not_enter_the_fingerprint() -> None:
    prompt = Prompt(text="make a sun", images=(RED,))
    labelled = replace(prompt, id="x", surface="image", harmful=True, intention="?", reference="!")
    assert labelled.fingerprint == prompt.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"text": "make a sum"},
        {"images": (Image.new("RGB", (8, 8), (255, 0, 1)),)},
        {"images": (RED, RED)},
        {"images": (Image.new("RGB", (4, 16), "red"),)},  # the same bytes in another shape
        {"images": ()},
        {"videos": (CLIP,)},
    ],
)
def test_all_that_the_model_sees_enters_the_fingerprint(change: dict[str, Any]) -> None:
    prompt = Prompt(text="make a sun", images=(RED,))
    assert replace(prompt, **change).fingerprint != prompt.fingerprint


def test_one_changed_pixel_of_a_clip_changes_the_fingerprint() -> None:
    changed = CLIP.copy()
    changed[1, 2, 3, 0] = 1
    assert Prompt(text="", videos=(CLIP,)).fingerprint != Prompt(text="", videos=(changed,)).fingerprint


def test_twins_share_the_visual_fingerprint_and_not_the_other() -> None:
    toxic, safe = Prompt(text="make a knife", images=(RED,)), Prompt(text="make a sun", images=(RED,))
    assert toxic.visual_fingerprint == safe.visual_fingerprint
    assert toxic.fingerprint != safe.fingerprint


def test_a_file_and_the_same_picture_in_memory_agree(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    RED.save(file)
    on_disk, in_memory = Prompt(text="", images=(file,)), Prompt(text="", images=(RED,))
    assert on_disk.fingerprint == in_memory.fingerprint
    Image.new("RGB", (8, 8), "blue").save(file)
    assert on_disk.fingerprint != in_memory.fingerprint, "a replaced file is another picture"


def test_pictures_of_any_mode_are_opened_as_rgb(tmp_path: Path) -> None:
    file = tmp_path / "grey.png"
    Image.new("L", (3, 3), 7).save(file)
    (picture,) = open_images(Prompt(text="", images=(file,)))
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("content", [b"not a picture", None])
def test_an_unreadable_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"prompt 'p3': cannot read image .*broken\.png.*check that"):
        open_images(Prompt(id="p3", text="", images=(file,)))


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cannot read image .*cut\.png"):
        open_images(Prompt(id="p3", text="", images=(file,)))


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros((2, 4, 4, 3), dtype=np.float32),
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((2, 3, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 4, 3), dtype=np.uint8),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_a_clip_is_uint8_frames(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"prompt 'p3': video 0 is .*give an array of uint8"):
        Prompt(id="p3", text="", videos=(clip,))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": ("red.png",)}, r"image 0 is a str; allowed are .*Path\(name\)"),
        ({"videos": ([[0]],)}, "video 0 is a list; give an array of uint8"),
        ({"videos": (Path("a.mp4"),)}, r"video 0 is a PosixPath; give an array of .* as VideoFile\(path\)"),
    ],
)
def test_other_types_are_refused_with_the_remedy(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Prompt(text="", **wrong)


@pytest.mark.usefixtures("as_a_user")
def test_parts_of_another_type_are_named() -> None:
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(TypeError, match=r"prompt '1': text is a NoneType; give a string"):
        Prompt(id="1", text=None)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"prompt '2': images is a Image; give a tuple, for one of them \(image,\)"
    ):
        Prompt(id="2", text="?", images=picture)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"prompt '3': videos is a list; give a tuple"):
        Prompt(id="3", text="?", videos=[])  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("id", 3, "id is 3, of type int; give a string"),
        ("reference", 4, "reference is 4, of type int; give a string"),
        ("harmful", "no", "harmful is 'no', of type str; give True, False, or None"),
        ("harmful", np.True_, "harmful is np.True_, of type bool; give True, False, or None"),
    ],
)
def test_labels_of_another_type_are_named(field: str, value: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        Prompt(text="make a sun", **{field: value})


@pytest.mark.parametrize("pixels", [np.ones((8, 8), np.float32), np.full((8, 8), 40_000, np.uint16)])
def test_numbers_that_would_be_cut_off_are_no_picture(tmp_path: Path, pixels: np.ndarray) -> None:
    picture = Image.fromarray(pixels)
    with pytest.raises(ValueError, match=r"prompt 'p': image 0 is of mode .*scale them to 0 … 255"):
        Prompt(id="p", text="", images=(picture,))
    picture.save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match=r"prompt 'p': image .*deep.tiff is of mode"):
        open_images(Prompt(id="p", text="", images=(tmp_path / "deep.tiff",)))


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="image 0 is 0 × 8 pixels"):
        Prompt(id="p", text="", images=(Image.new("RGB", (0, 8)),))


def test_a_picture_file_that_is_not_there_is_named_without_opening(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "lost.png", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(ValueError, match=f"prompt 'p': image {path} {found}"):
            check_pictures_exist(Prompt(id="p", text="", images=(path,)))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("given", [Prompt(text="a"), "a", ["a"], None])
def test_what_is_no_list_of_prompts_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match=r"toxic holds .*; give a list of Prompt"):
        prompts_of(given, name="toxic")
