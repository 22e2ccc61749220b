"""Neutral sights: pictures and clips of one plain colour, which show nothing.

    colour ~ uniform over RGB, one a picture; a clip keeps it in all its frames

Their mean last-token state is what a sight brings along by being a sight at all: the centre that MARS takes away
before it reads the textual direction in a picture or clip. The paper says "randomly coloured" and N = 128; size,
how colours are drawn, and the words beside them are not stated, nor are neutral clips. The caller gives the words,
which the sights take in turn; those of the task at hand keep everything but the sight the same.

Source: MARS (arXiv 2606.31876) §3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from autosteer_lib.arguments import check_whole
from autosteer_lib.prompts import Prompt


def neutral_pictures(count: int, *, words: Sequence[str], side: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts with a plain picture of side × side pixels each.

    Raises:
        ValueError: count or side below 1, or no words.
    """
    return [
        Prompt(id=f"neutral/picture/{seed}/{i:04d}", text=text, images=(Image.fromarray(frames[0]),))
        for i, (text, frames) in enumerate(_plain(count, words=words, side=side, frames=1, seed=seed))
    ]


def neutral_clips(count: int, *, words: Sequence[str], side: int, frames: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts with a plain clip of that many frames each.

    Raises:
        ValueError: count, side or frames below 1, or no words.
    """
    return [
        Prompt(id=f"neutral/clip/{seed}/{i:04d}", text=text, videos=(clip,))
        for i, (text, clip) in enumerate(_plain(count, words=words, side=side, frames=frames, seed=seed))
    ]


def _plain(
    count: int, *, words: Sequence[str], side: int, frames: int, seed: int
) -> list[tuple[str, np.ndarray]]:
    for name, value in (("count", count), ("side", side), ("frames", frames)):
        check_whole(**{name: value})
        if value < 1:
            raise ValueError(f"{name} = {value}; neutral sights need at least 1")
    check_whole(seed=seed)
    if isinstance(words, str):  # which would be taken letter by letter
        raise TypeError(f"words is {words!r}; give a list of sentences, as in [{words!r}]")
    if not words:
        raise ValueError(
            'words is empty: a neutral sight needs something to be asked beside it ("describe the picture")'
        )
    colours = np.random.default_rng(seed).integers(0, 256, (count, 3), dtype=np.uint8)
    return [
        (words[i % len(words)], np.tile(colour, (frames, side, side, 1))) for i, colour in enumerate(colours)
    ]
