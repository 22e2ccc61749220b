"""A film on disk is shown by frames that are stated beforehand, and a file that is no film is named."""

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from autosteer_lib.encoding import encode
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt, clip_shapes, open_videos
from autosteer_lib.rehearsal.films import STEP, film, reds
from autosteer_lib.rehearsal.tiny_models import SIDE
from autosteer_lib.videos import VideoFile, frame_indices, frame_size, read_video


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """A film of twelve frames of rising red."""
    return film(tmp_path / "twelve.mp4", [STEP * i for i in range(12)])


# Which frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "shown"),
    [(1, [6]), (2, [3, 9]), (3, [2, 6, 10]), (4, [1, 4, 7, 10]), (12, list(range(12)))],
)
def test_the_middles_of_equal_segments_are_shown(twelve: Path, frames: int, shown: list[int]) -> None:
    clip = read_video(twelve, frames=frames)
    assert clip.shape == (frames, SIDE // 2, SIDE, 3)
    assert clip.dtype == np.uint8
    assert reds(clip) == shown


def test_a_short_film_repeats_its_frames_in_order(tmp_path: Path) -> None:
    clip = read_video(film(tmp_path / "short.mp4", [0, STEP, 2 * STEP]), frames=8)
    assert reds(clip) == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 1000])
@pytest.mark.parametrize("frames", [1, 3, 8, 16])
def test_indices_are_the_formula(count: int, frames: int) -> None:
    indices = frame_indices(count, frames=frames)
    assert indices == [int(np.floor((i + 0.5) * count / frames)) for i in range(frames)]
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < count


@pytest.mark.parametrize(("count", "frames"), [(0, 1), (1, 0)])
def test_no_frames_of_none(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"cannot show {frames} of {count} frames"):
        frame_indices(count, frames=frames)


def test_the_same_file_gives_the_same_frames(twelve: Path) -> None:
    assert np.array_equal(read_video(twelve, frames=5), read_video(twelve, frames=5))


def test_frames_are_counted_and_not_believed(tmp_path: Path) -> None:
    """A film that breaks off: its header still speaks of twelve frames."""
    whole = film(tmp_path / "whole.mp4", [STEP * i for i in range(12)], options={"movflags": "faststart"})
    content = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: (content.find(b"mdat") + len(content)) // 2])
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames == 12
        count = sum(1 for _ in container.decode(video=0))
    assert 2 < count < 12
    assert reds(read_video(cut, frames=2)) == frame_indices(count, frames=2)


def test_damaged_frames_do_not_count(tmp_path: Path, twelve: Path) -> None:
    content = bytearray(twelve.read_bytes())
    start, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    middle = (start + end) // 2
    content[middle:end] = bytes(end - middle)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    shown = reds(read_video(damaged, frames=12))
    assert shown[0] == 0
    assert max(shown) < 11


@pytest.mark.parametrize(("turned", "blue"), [(90.0, "bottom"), (-90.0, "top"), (180.0, "right")])
def test_a_film_stands_upright(tmp_path: Path, turned: float, blue: str) -> None:
    """Turned anticlockwise by 90°, the left half lies at the bottom."""
    path = film(tmp_path / "turned.mp4", [100] * 3, turned=turned)
    frame = read_video(path, frames=1)[0].astype(int)
    height, width = frame.shape[:2]
    assert (height, width) == ((SIDE // 2, SIDE) if abs(turned) == 180 else (SIDE, SIDE // 2))
    assert frame_size(path) == (height, width)
    halves = {
        "top": frame[: height // 2], "bottom": frame[height // 2 :], "right": frame[:, width // 2 :],
    }  # fmt: skip
    assert halves[blue][..., 2].mean() > frame[..., 2].mean() + 50


def test_an_animated_gif_is_a_film(tmp_path: Path) -> None:
    path = tmp_path / "two.gif"
    Image.new("RGB", (8, 8), "red").save(
        path, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    )
    clip = read_video(path, frames=2)
    assert clip[0, 0, 0].tolist() == [255, 0, 0]
    assert clip[1, 0, 0].tolist() == [0, 0, 255]


def test_a_name_is_no_address(tmp_path: Path, twelve: Path) -> None:
    """FFmpeg reads `concat:` and `%d` in names as orders of its own."""
    for name in ("concat:a.mp4", "frame%03d.mp4"):
        path = tmp_path / name
        path.write_bytes(twelve.read_bytes())
        assert read_video(path, frames=2).shape[0] == 2


# What is refused -----------------------------------------------------------------------------------------


def _png(path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(path, format="PNG")


def _text(path: Path) -> None:
    path.write_text("this is no film\n" * 40)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _list_of_files(path: Path) -> None:
    film(path.with_name("other.mp4"), [0, 0])
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


def _song(path: Path, *, cover: bool) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), format="rgb24")
            container.mux(picture.encode(frame.reformat(format="yuvj420p")))
            container.mux(picture.encode())
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode())


def _no_length(path: Path) -> None:
    """The frames' bytes are gone, all else is there."""
    film(path, [0, 0, 0], options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.find(b"mdat") + 6])


def _cut_before_its_header(path: Path) -> None:
    film(path, [0, 100, 200])
    content = path.read_bytes()
    path.write_bytes(content[: content.find(b"mdat")])


def _unknown_codec(path: Path) -> None:
    written = film(path.with_suffix(".avi"), [0, 0, 0])
    path.write_bytes(written.read_bytes().replace(b"FMP4", b"zzzz"))


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (_png, "a.mp4", r"is a picture \(PNG\), not a video; .*a picture to images="),
        (_text, "a.mp4", r"cannot be read as a video \(.*Invalid data.*check that it is a whole MP4"),
        (_text, "a.txt", r"is text, not a video; give a video file"),
        (_list_of_files, "a.mp4", r"is a list of files, not a video"),
        (_empty, "a.mp4", r"is empty \(0 bytes\); check that it is a whole MP4"),
        (
            lambda path: _song(path, cover=False),
            "a.m4a",
            r"has no video stream \(it holds: audio\); give a file",
        ),
        (lambda path: _song(path, cover=True), "a.m4a", r"has no video stream \(it holds: audio, video\)"),
        (_no_length, "a.mp4", r"has no frame that can be decoded: .*give a whole copy"),
        (_cut_before_its_header, "a.mp4", r"(cannot be read as a video|has no video stream).*; (check|give)"),
        (
            _unknown_codec,
            "a.avi",
            r"has a codec that this build of FFmpeg cannot decode; convert it to H\.264",
        ),
    ],
)
def test_what_is_no_film_is_named(tmp_path: Path, write: Any, name: str, message: str) -> None:
    path = tmp_path / name
    write(path)
    for read in (lambda: read_video(path, frames=2), lambda: frame_size(path)):
        with pytest.raises(ValueError, match=rf"^video .*{name} {message}"):
            read()
    with pytest.raises(ValueError, match=rf"^prompt 'p3': video .*{name} {message}"):
        open_videos(Prompt(id="p3", text="?", videos=(VideoFile(path),)))


@pytest.mark.parametrize(("name", "found"), [("absent.mp4", "does not exist"), (".", "is a folder")])
def test_a_file_that_is_not_there(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{found}; give the path of a video file"):
        read_video(tmp_path / name, frames=2)
    prompt = Prompt(id="p3", text="?", videos=(VideoFile(tmp_path / name),))
    with pytest.raises(ValueError, match=f"prompt 'p3': .*{found}"):
        clip_shapes(prompt)


def test_a_codec_that_gives_up_on_the_way_is_named(twelve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the bare AV1 decoder does where it finds no hardware."""
    read = av.open

    class GivesUp:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.container = read(*args, **options)
            self.format, self.streams = self.container.format, self.container.streams

        def __enter__(self) -> "GivesUp":
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def demux(self, _: object) -> Any:
            raise av.error.NotImplementedError(78, "Function not implemented")

    monkeypatch.setattr(av, "open", GivesUp)
    with pytest.raises(
        ValueError, match=r"cannot be decoded by FFmpeg's mpeg4 \(.*not implemented.*convert it"
    ):
        read_video(twelve, frames=2)


def test_without_pyav_arrays_still_work(twelve: Path, tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = read_video(twelve, frames=4)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImportError, match=r"twelve\.mp4 needs PyAV.*pip install av.*arrays .*need no decoder"
    ):
        open_videos(Prompt(text="?", videos=(VideoFile(twelve),)))
    encoded = encode(tiny, [Prompt(text="what ?", videos=(clip,))])
    assert encoded.inputs["pixel_values_videos"].shape[:2] == (1, 4)


@pytest.mark.parametrize("frames", [0, -1, 2.5, "8"])
@pytest.mark.usefixtures("as_a_user")
def test_a_count_below_one_is_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match=rf"frames={frames!r} of a\.mp4; give a whole number, at least 1"):
        VideoFile(Path("a.mp4"), frames=frames)


@pytest.mark.usefixtures("as_a_user")
def test_a_name_needs_a_path() -> None:
    with pytest.raises(TypeError, match=r"path is a str; wrap a file name as Path\(name\)"):
        VideoFile("a.mp4")  # type: ignore[arg-type]
