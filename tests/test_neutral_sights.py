"""Neutral pictures and clips: plain, of many colours, and the same again."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.neutral_sights import neutral_clips, neutral_pictures
from autosteer_lib.prompts import Prompt

WORDS = ("what is this ?", "describe this picture")


def pixels(prompt: Prompt) -> np.ndarray:
    """[frames, side, side, 3]"""
    if prompt.videos:
        (clip,) = prompt.videos
        assert isinstance(clip, np.ndarray)
        return clip
    (image,) = prompt.images
    assert isinstance(image, Image.Image)
    return np.asarray(image)[None]


@pytest.mark.parametrize("modality", ["image", "video"])
def test_each_is_of_one_colour(modality: str) -> None:
    if modality == "image":
        prompts, shape = neutral_pictures(9, words=WORDS, side=8), (1, 8, 8, 3)
    else:
        prompts, shape = neutral_clips(9, words=WORDS, side=8, frames=3), (3, 8, 8, 3)
    for prompt in prompts:
        seen = pixels(prompt)
        assert seen.shape == shape
        assert seen.dtype == np.uint8
        assert prompt.modality == modality
        assert (seen == seen[0, 0, 0]).all()
    assert len({prompt.visual_fingerprint for prompt in prompts}) == 9
    assert [prompt.text for prompt in prompts] == [WORDS[i % 2] for i in range(9)]
    assert len({prompt.id for prompt in prompts}) == 9


def test_colours_are_uniform_over_rgb() -> None:
    colours = np.array([pixels(p)[0, 0, 0] for p in neutral_pictures(2000, words=WORDS, side=1)])
    assert (colours.min(0) < 5).all()
    assert (colours.max(0) > 250).all()
    # Standard error of a channel's mean: 256 / √(12 · 2000) = 1.7; of a correlation: 0.02.
    assert abs(colours.mean(0) - 127.5).max() < 7
    assert abs(np.corrcoef(colours.T) - np.eye(3)).max() < 0.1


def test_a_seed_gives_the_same_ones_again_and_fewer_are_the_first_of_more() -> None:
    def fingerprints(count: int, seed: int) -> list[str]:
        return [prompt.fingerprint for prompt in neutral_pictures(count, words=WORDS, side=4, seed=seed)]

    assert fingerprints(8, 0) == fingerprints(8, 0)
    assert fingerprints(4, 0) == fingerprints(8, 0)[:4]  # a sweep over N adds to what was there
    assert not set(fingerprints(8, 0)) & set(fingerprints(8, 1))


def test_what_cannot_be_drawn_is_refused() -> None:
    for name in ("count", "side", "frames"):
        sizes = {"count": 2, "side": 4, "frames": 3, name: 0}
        with pytest.raises(ValueError, match=f"{name} = 0; neutral sights need at least 1"):
            neutral_clips(sizes["count"], words=WORDS, side=sizes["side"], frames=sizes["frames"])
    with pytest.raises(ValueError, match="count = -1"):
        neutral_pictures(-1, words=WORDS, side=4)
    with pytest.raises(ValueError, match="words is empty"):
        neutral_pictures(2, words=(), side=4)


@pytest.mark.usefixtures("as_a_user")
def test_one_sentence_is_not_taken_letter_by_letter() -> None:
    with pytest.raises(TypeError, match=r"words is 'describe this'; give a list of sentences"):
        neutral_pictures(2, words="describe this", side=4)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("given", [{"count": "3"}, {"side": (8, 8)}, {"seed": None}])
def test_sizes_are_whole_numbers(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"(count|side|seed) is .*; give a plain whole number"):
        neutral_pictures(**{"count": 1, "words": ["describe"], "side": 8, **given})
