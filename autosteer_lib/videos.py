"""Films: a video file → the frames that a model is shown.

    of n decodable frames, k are shown:   frame ⌊(i + ½) n / k⌋,   i = 0 … k − 1

Each is the middle of one of k equal segments, so the same file always gives the same frames, spread over the
whole film. There are always k of them: families stack the clips of a batch, which needs equal counts. So a
film with fewer frames than asked for repeats them, in order, each for its share of the time: of 3 frames, 8
are 0 0 0 1 1 2 2 2.

n is counted by decoding, since the number in a file's header may be missing or wrong. That takes two passes,
one to count and one to keep, and holds k frames in memory however long the film is. Frames that cannot be
decoded do not count. A film is turned upright as its file asks (telephones store it lying), and frames whose
size changes on the way get the size of the first.

Pixels are those of the installed decoder (PyAV, which carries FFmpeg): another release may round a colour
differently. A prompt's fingerprint is over these pixels, so it tells.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

# What FFmpeg opens as a video stream and is none: text as a terminal's screen, lists of other files. Lists
# would show files that nobody named.
_NO_FILMS = {"tty": "text", "concat": "a list of files", "hls": "a list of files", "image2": "a picture"}
_COVER = 1024  # AV_DISPOSITION_ATTACHED_PIC: the picture on a song, which is no film


@dataclass(frozen=True)
class VideoFile:
    """A film on disk and how much of it is shown. It is opened only when a prompt is encoded or hashed."""

    path: Path
    """MP4, WebM, MKV, AVI, GIF or whatever else the decoder knows."""
    frames: int = 8
    """How many frames are shown, whatever the film's length. Clips of one batch need the same number."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, Path):
            raise TypeError(
                f"path is a {type(self.path).__name__}; wrap a file name as Path(name), and give an array of "
                "frames to videos= as it is"
            )
        if not isinstance(self.frames, int) or self.frames < 1:
            raise ValueError(f"frames={self.frames!r} of {self.path}; give a whole number, at least 1")


def read_video(path: Path, *, frames: int) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames of a film that a model is shown, as RGB.

    Args:
        path: the file.
        frames: how many; see above for which.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a film, a film without a frame that can be decoded, a codec that this build of the
            decoder lacks, or frames below 1; names the file.
        ImportError: PyAV is not installed.
    """
    with closing(_decoded(path)) as film:
        count = sum(1 for _ in film)
    if not count:
        raise _nothing_to_see(path)
    wanted = frame_indices(count, frames=frames)
    kept: dict[int, np.ndarray] = {}
    size = None
    with closing(_decoded(path)) as film:
        for index, frame in zip(range(wanted[-1] + 1), film, strict=False):
            size = size or (frame.width, frame.height)
            if index in wanted:
                kept[index] = _pixels(frame, size=size)
    return np.stack([kept[index] for index in wanted])


def frame_size(path: Path) -> tuple[int, int]:
    """Height and width of a film's first frame, without decoding the rest; raises as `read_video` does."""
    with closing(_decoded(path)) as film:
        for frame in film:
            height, width, _ = _pixels(frame, size=(frame.width, frame.height)).shape
            return height, width
    raise _nothing_to_see(path)


def frame_indices(count: int, *, frames: int) -> list[int]:
    """Which of `count` frames are shown when `frames` are asked for: the middles of equal segments."""
    if count < 1 or frames < 1:
        raise ValueError(f"cannot show {frames} of {count} frames; both must be at least 1")
    return [(2 * i + 1) * count // (2 * frames) for i in range(frames)]


def _decoded(path: Path) -> Generator[Any, None, None]:
    """The film's frames in the order of showing (`av.VideoFrame`), one at a time."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"video {path} {found}; give the path of a video file")
    av = _pyav(path)
    try:
        # `file:` and the list of protocols: no name and no content can make the decoder reach for a network.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        found = "is empty (0 bytes)" if not path.stat().st_size else f"cannot be read as a video ({error})"
        raise ValueError(
            f"video {path} {found}; check that it is a whole MP4, WebM or other file that FFmpeg knows"
        ) from error
    with container:
        stream = _video_stream(container, path)
        try:
            for packet in container.demux(stream):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    continue  # a damaged place in the film: what stands around it still counts
        except av.FFmpegError as error:
            raise ValueError(
                f"video {path} cannot be decoded by FFmpeg's {stream.codec_context.name} ({error}); convert it "
                "to H.264 in MP4, or give its frames as an array"
            ) from error


def _video_stream(container: Any, path: Path) -> Any:
    kind = container.format.name
    if kind in _NO_FILMS or kind.endswith("_pipe"):
        found = _NO_FILMS.get(kind, f"a picture ({kind.removesuffix('_pipe').upper()})")
        raise ValueError(
            f"video {path} is {found}, not a video; give a video file here, and a picture to images="
        )
    streams = [s for s in container.streams.video if not s.disposition.value & _COVER]
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise ValueError(
            f"video {path} has no video stream (it holds: {found}); give a file that has something to see"
        )
    if streams[0].codec_context is None:
        raise ValueError(
            f"video {path} has a codec that this build of FFmpeg cannot decode; convert it to H.264 in MP4, or "
            "give its frames as an array"
        )
    return streams[0]


def _nothing_to_see(path: Path) -> ValueError:
    return ValueError(
        f"video {path} has no frame that can be decoded: it is cut short, damaged or of no length; give a "
        "whole copy of it"
    )


def _pixels(frame: Any, *, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    pixels: np.ndarray = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    # Both turn anticlockwise. Angles between the quarters are not used by any camera.
    return np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90)))


def _pyav(path: Path) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"video {path} needs PyAV, which is not there ({error}): pip install av. Clips that are given "
            "as arrays [frames, height, width, 3] need no decoder"
        ) from error
    return av
