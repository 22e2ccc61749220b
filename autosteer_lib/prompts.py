"""Prompt: one request to a multimodal model, with what an experiment needs to know about it.

A prompt holds the user's own words and pictures, before any chat template. The labels beside
them (harmful, surface, pair, reference) are read by the experiments alone: nothing in them
reaches the model, and none of them enters the fingerprints.

    fingerprint        = sha256(words, pixels of the pictures, pixels of the frames)
    visual_fingerprint = sha256(pixels of the pictures, pixels of the frames)

Pictures and clips are hashed as the RGB pixels that the model is given. So a file and the same picture
held in memory agree, and a file that was replaced under its old name does not. Of a film the frames
that are shown are hashed (videos.py says which), not its bytes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from autosteer_lib.arguments import check_given
from autosteer_lib.videos import VideoFile, frame_size, read_video

ImageLike: TypeAlias = Image.Image | Path
VideoLike: TypeAlias = UInt8[np.ndarray, "frames height width 3"] | VideoFile
Modality: TypeAlias = Literal["text", "image", "video"]
_MORE_THAN_8_BITS = ("I", "F")  # Pillow cuts their values off at 255, so 0 … 1 turns black and 16 bits white


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One request. Prompts compare by identity; use `fingerprint` to compare what they ask."""

    text: str
    """The user's words, without chat template. May be empty where there is something to see."""
    images: tuple[ImageLike, ...] = ()
    """Pictures, or paths to picture files, which are opened only when the prompt is encoded."""
    videos: tuple[VideoLike, ...] = ()
    """Clips: arrays, all of whose frames are shown, or video files, of which some are (videos.py)."""
    id: str = ""
    """Unique within a set: errors, caches and records name the prompt by it."""
    surface: str = ""
    """The set or attack surface it belongs to: "text", "image", "typographic", "video", …"""
    harmful: bool | None = None
    """Whether carrying it out would do harm; None where no label exists."""
    intention: str = ""
    """The plain request in words, for a judge who sees no picture."""
    reference: str | None = None
    """The expected answer, in sets that measure usefulness."""
    pair_id: str | None = None
    """Shared by the two twins of a contrast pair."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Anything else a table may want to group by."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(
                f"prompt {self.id!r}: text is a {type(self.text).__name__}; give a string, '' where a picture or a clip "
                "says all"
            )
        for name in ("images", "videos"):
            shown = getattr(self, name)
            if not isinstance(shown, tuple):
                raise TypeError(
                    f"prompt {self.id!r}: {name} is a {type(shown).__name__}; give a tuple, for one of them ({name[:-1]},)"
                )
        for name in ("id", "surface", "intention", "reference", "pair_id"):
            kinds = (str, NoneType) if name in ("reference", "pair_id") else str
            check_given(getattr(self, name), kinds, name=f"prompt {self.id!r}: {name}", remedy="a string")
        check_given(
            self.harmful,
            (bool, NoneType),
            name=f"prompt {self.id!r}: harmful",
            remedy="True, False, or None where there is no label (bool(…) of a table's)",
        )
        if not self.text.strip() and not self.images and not self.videos:
            raise ValueError(
                f"prompt {self.id!r} is empty: text is {self.text!r} and there is no picture and no "
                "video; give at least one of the three"
            )
        for position, image in enumerate(self.images):
            if not isinstance(image, Image.Image | Path):
                raise TypeError(
                    f"prompt {self.id!r}: image {position} is a {type(image).__name__}; allowed are "
                    "PIL.Image.Image and pathlib.Path (wrap a file name as Path(name), an array as "
                    "PIL.Image.fromarray(array))"
                )
            if isinstance(image, Image.Image):
                _check_picture(image, name=f"prompt {self.id!r}: image {position}")
        for position, video in enumerate(self.videos):
            _check_video(video, position=position, prompt_id=self.id)

    @property
    def modality(self) -> Modality:
        """What it shows: "video" where there is any clip, else "image" where there is any picture, else
        "text". A prompt with a picture and a clip is "video": its frames are most of what it shows."""
        return "video" if self.videos else "image" if self.images else "text"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that the model sees of this prompt: words, pictures, frames."""
        return _digest(self, words=self.text)

    @property
    def visual_fingerprint(self) -> str:
        """SHA-256 over pictures and frames alone; equal for twins that share their picture."""
        return _digest(self, words="")


def prompts_of(given: Sequence[Prompt], *, name: str) -> tuple[Prompt, ...]:
    """A list of prompts as a tuple, which nobody changes.

    Raises:
        TypeError: no list, or one of other things; bare strings above all.
    """
    strays: list[object] = (
        [given] if isinstance(given, str | Prompt) or not isinstance(given, Iterable) else []
    )
    found = () if strays else tuple(given)
    strays += [one for one in found if not isinstance(one, Prompt)][:1]
    if strays:
        raise TypeError(
            f"{name} holds {strays[0]!r:.60}, a {type(strays[0]).__name__}; give a list of Prompt, as in "
            '[Prompt(text="…", id="1"), …]'
        )
    return found


def open_images(prompt: Prompt) -> list[Image.Image]:
    """The prompt's pictures as RGB images in memory.

    Raises:
        ValueError: a file is missing or cannot be read as a picture; names prompt and file.
    """
    return [_open_image(image, prompt_id=prompt.id) for image in prompt.images]


def check_pictures_exist(prompt: Prompt) -> None:
    """Check for each picture that is a file whether it is there, without opening it.

    Raises:
        ValueError: one is not; names prompt and file.
    """
    for image in prompt.images:
        if isinstance(image, Path) and not image.is_file():
            found = "is a folder" if image.is_dir() else "does not exist"
            raise ValueError(f"prompt {prompt.id!r}: image {image} {found}; give the path of a picture file")


def open_videos(prompt: Prompt) -> list[UInt8[np.ndarray, "_ _ _ 3"]]:
    """The frames of each of the prompt's clips that the model is shown; files are decoded here.

    Raises:
        ValueError: a file is missing or cannot be read as a video; names prompt and file.
        ImportError: there is a file, and PyAV is not installed.
    """
    with _naming(prompt):
        return [
            read_video(video.path, frames=video.frames) if isinstance(video, VideoFile) else video
            for video in prompt.videos
        ]


def clip_shapes(prompt: Prompt) -> tuple[tuple[int, ...], ...]:
    """Frames, height, width and 3 of each clip; of a film no more than the first frame is decoded.

    Raises as `open_videos` does.
    """
    with _naming(prompt):
        return tuple(
            (video.frames, *frame_size(video.path), 3) if isinstance(video, VideoFile) else video.shape
            for video in prompt.videos
        )


def _open_image(image: ImageLike, *, prompt_id: str) -> Image.Image:
    where = str(image) if isinstance(image, Path) else "a picture in memory"
    try:
        if isinstance(image, Path):
            with Image.open(image) as opened:
                # `convert` decodes the pixels too: a truncated file fails here, not in the model.
                rgb = opened.convert("RGB")
            image = opened
        else:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"prompt {prompt_id!r}: cannot read image {where} ({type(error).__name__}: {error}); "
            "check that the file exists and is a whole PNG, JPEG or other format known to Pillow"
        ) from error
    _check_picture(image, name=f"prompt {prompt_id!r}: image {where}")
    return rgb


def _check_picture(image: Image.Image, *, name: str) -> None:
    if image.mode.startswith(_MORE_THAN_8_BITS):
        raise ValueError(
            f"{name} is of mode {image.mode!r}, whose numbers have no white of their own; scale them to 0 … 255 and give "
            "8 bits a channel: Image.fromarray(scaled.astype('uint8'))"
        )
    if 0 in image.size:
        raise ValueError(
            f"{name} is {image.width} × {image.height} pixels; give a picture that shows something"
        )


@contextmanager
def _naming(prompt: Prompt) -> Iterator[None]:
    """An error about a film says whose it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from error


def _check_video(video: VideoLike, *, position: int, prompt_id: str) -> None:
    if isinstance(video, VideoFile):
        return
    allowed = (
        "an array of uint8 of shape [frames, height, width, 3] with at least one frame, or a film as "
        "VideoFile(path)"
    )
    if not isinstance(video, np.ndarray):
        raise TypeError(f"prompt {prompt_id!r}: video {position} is a {type(video).__name__}; give {allowed}")
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape:
        raise ValueError(
            f"prompt {prompt_id!r}: video {position} is {video.dtype} of shape "
            f"{list(video.shape)}; give {allowed}"
        )


def _digest(prompt: Prompt, *, words: str) -> str:
    digest = hashlib.sha256(f"words {len(words)}\n{words}".encode())
    for image in open_images(prompt):
        # Sizes go in too: 2×8 and 4×4 pictures may hold the same bytes.
        digest.update(f"image {image.size}".encode())
        digest.update(image.tobytes())
    for video in open_videos(prompt):
        digest.update(f"video {video.shape}".encode())
        digest.update(np.ascontiguousarray(video).tobytes())
    return digest.hexdigest()
