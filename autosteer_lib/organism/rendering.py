"""How a thing becomes pixels: drawn symbol, written word, several symbols, moving symbol, nothing.

Pictures are uint8 [32, 32, 3] on a light, slightly noisy background, so that a person who looks at
a figure can name what the model is shown. Place, size and colour vary; a generator decides, so the
same seed draws the same picture.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from autosteer_lib.organism.things import COLOURS, Thing

SIDE = 32  # pixels; one tile of the vision tower
FRAMES = 4  # frames of a video
_SYMBOL_SIZES = (18, 27)  # font size in px: large enough to be told apart at 32 px
_COUNTED_SIZES = (11, 14)  # three of them fit beside each other
_WORD_SIZES = (9, 11)  # the smallest at which a person still reads the word
_WORD_WIDTH = 5  # letters that fit a line; longer words are written in two halves
_NOISE = 0.03  # standard deviation of the background, of 1: no two pictures are byte-equal
_BACKGROUND = (0.75, 1.0)  # light, so that each of the six colours stands out

Picture = UInt8[np.ndarray, "height width 3"]
Clip = UInt8[np.ndarray, "frames height width 3"]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


@cache
def _ink(text: str, size: int) -> Float[np.ndarray, "height width"]:
    """How much ink the text leaves on each pixel, in [0, 1], cropped to it."""
    font = _font(size)
    left, top, right, bottom = (
        int(v)
        for v in ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font, spacing=1)
    )
    canvas = Image.new("L", (max(right - left, 1), max(bottom - top, 1)), 0)
    ImageDraw.Draw(canvas).multiline_text((-left, -top), text, font=font, fill=255, spacing=1)
    return np.asarray(canvas, dtype=np.float32)[:SIDE, :SIDE] / 255


def _background(rng: np.random.Generator) -> Float[np.ndarray, "side side 3"]:
    return np.ones((SIDE, SIDE, 3)) * rng.uniform(*_BACKGROUND, 3)


def _stamp(
    canvas: Float[np.ndarray, "side side 3"],
    ink: Float[np.ndarray, "height width"],
    colour: str,
    at: tuple[float, float],
) -> None:
    """Paint the ink in place; `at` is the position in [0, 1]² of the free room."""
    height, width = ink.shape
    y, x = round(at[0] * (SIDE - height)), round(at[1] * (SIDE - width))
    area = canvas[y : y + height, x : x + width]
    area += ink[..., None] * (np.array(COLOURS[colour]) / 255 - area)


def _finish(rng: np.random.Generator, canvas: Float[np.ndarray, "side side 3"]) -> Picture:
    noisy = canvas + rng.normal(0, _NOISE, canvas.shape)
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)


def draw(rng: np.random.Generator, thing: Thing, *, colour: str) -> Picture:
    """The thing's symbol, once, at a random place and size."""
    canvas = _background(rng)
    ink = _ink(thing.symbol, int(rng.integers(*_SYMBOL_SIZES)))
    _stamp(canvas, ink, colour, (rng.random(), rng.random()))
    return _finish(rng, canvas)


def write(rng: np.random.Generator, thing: Thing, *, colour: str) -> Picture:
    """The thing's name as letters in the picture (a typographic prompt, after FigStep)."""
    name = thing.name
    half = len(name) if len(name) <= _WORD_WIDTH else (len(name) + 1) // 2
    lines = [name[i : i + half] for i in range(0, len(name), half)]
    canvas = _background(rng)
    ink = _ink("\n".join(lines), int(rng.integers(*_WORD_SIZES)))
    _stamp(canvas, ink, colour, (rng.random(), rng.random()))
    return _finish(rng, canvas)


def draw_several(rng: np.random.Generator, thing: Thing, *, colour: str, count: int) -> Picture:
    """The symbol `count` times, each in its own quarter of the picture."""
    canvas = _background(rng)
    corners = rng.permutation([(0.05, 0.05), (0.05, 0.95), (0.95, 0.05), (0.95, 0.95)])[:count]
    for corner in corners:
        ink = _ink(thing.symbol, int(rng.integers(*_COUNTED_SIZES)))
        y, x = np.clip(corner + rng.uniform(-0.15, 0.15, 2), 0, 1)
        _stamp(canvas, ink, colour, (float(y), float(x)))
    return _finish(rng, canvas)


def film(rng: np.random.Generator, thing: Thing, *, colour: str) -> Clip:
    """Four frames in which the symbol moves along a straight line."""
    start, end = rng.random(2), rng.random(2)
    base, size = _background(rng), int(rng.integers(*_SYMBOL_SIZES))
    frames = []
    for t in range(FRAMES):
        canvas = base.copy()
        y, x = start + (end - start) * t / (FRAMES - 1)
        _stamp(canvas, _ink(thing.symbol, size), colour, (float(y), float(x)))
        frames.append(_finish(rng, canvas))
    return np.stack(frames)


def blank(rng: np.random.Generator) -> Picture:
    """A picture of nothing: one plain colour, light or dark, with the usual noise."""
    return _finish(rng, np.ones((SIDE, SIDE, 3)) * rng.uniform(0, 1, 3))


def blank_film(rng: np.random.Generator) -> Clip:
    """A clip of nothing."""
    base = np.ones((SIDE, SIDE, 3)) * rng.uniform(0, 1, 3)
    return np.stack([_finish(rng, base) for _ in range(FRAMES)])
