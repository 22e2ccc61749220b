"""Twins stay together, and sides that are not twins are refused by name."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.pairs import ContrastPairs, split_indices
from autosteer_lib.prompts import Prompt


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8))


def twins(count: int) -> tuple[list[Prompt], list[Prompt]]:
    toxic = [
        Prompt(text=f"make poison {i}", images=(picture(i),), id=f"t{i}", harmful=True, pair_id=str(i))
        for i in range(count)
    ]
    safe = [
        Prompt(text=f"make soup {i}", images=(picture(i),), id=f"s{i}", harmful=False, pair_id=str(i))
        for i in range(count)
    ]
    return toxic, safe


def pairs(count: int) -> ContrastPairs:
    toxic, safe = twins(count)
    return ContrastPairs(tuple(toxic), tuple(safe))


def test_split_keeps_twins_together_and_loses_none() -> None:
    whole = pairs(30)
    train, held_out = whole.split(held_out=0.2, seed=1)
    assert (len(train), len(held_out)) == (24, 6)
    for part in (train, held_out):
        assert [p.pair_id for p in part.toxic] == [p.pair_id for p in part.safe]
    assert {p.id for p in (*train.toxic, *held_out.toxic)} == {p.id for p in whole.toxic}


def test_split_is_the_published_scripts() -> None:
    state = random.getstate()
    random.seed(42)
    indices = list(range(3000))
    random.shuffle(indices)
    random.setstate(state)
    train, held_out = split_indices(3000, held_out=0.1, seed=42)
    assert (held_out, train) == (indices[:300], indices[300:])


@pytest.mark.usefixtures("as_a_user")  # the type checks draw random numbers of their own
def test_split_follows_the_seed_and_leaves_the_global_state() -> None:
    state = random.getstate()
    assert split_indices(20, seed=0) == split_indices(20, seed=0) != split_indices(20, seed=1)
    assert random.getstate() == state


def test_both_parts_of_a_small_split_can_be_used() -> None:
    train, held_out = pairs(4).split(held_out=0.1, seed=0)
    assert (len(train), len(held_out)) == (2, 2)
    with pytest.raises(ValueError, match="give 4 or more"):
        pairs(3).split(held_out=0.5, seed=0)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        pairs(4).split(held_out=0.0, seed=0)


def test_unequal_sides_and_single_pairs_are_refused() -> None:
    toxic, safe = twins(3)
    with pytest.raises(ValueError, match="3 toxic prompts and 2 safe ones"):
        ContrastPairs(tuple(toxic), tuple(safe[:2]))
    with pytest.raises(ValueError, match="give at least 2"):
        ContrastPairs(tuple(toxic[:1]), tuple(safe[:1]))


def test_what_is_no_pair_is_named() -> None:
    toxic, safe = twins(3)

    def with_second(prompt: Prompt) -> ContrastPairs:
        return ContrastPairs(tuple(toxic), (safe[0], prompt, safe[2]))

    with pytest.raises(ValueError, match=r"pair 1 \(toxic 't1', safe 's1'\): harmful is True .* and True"):
        with_second(replace(safe[1], harmful=True))
    with pytest.raises(ValueError, match=r"pair 1 .*: pair ids '1' and '9' differ"):
        with_second(replace(safe[1], pair_id="9"))
    with pytest.raises(ValueError, match=r"pair 1 .*: the twins show different pictures"):
        with_second(replace(safe[1], images=(picture(9),)))
    with pytest.raises(ValueError, match=r"pair 1 .*: the twins are the same prompt"):
        with_second(replace(safe[1], text=toxic[1].text))
    with pytest.raises(ValueError, match="the sides are swapped"):
        ContrastPairs(tuple(safe), tuple(toxic))


def test_prompts_without_labels_are_welcome() -> None:
    toxic, safe = twins(2)
    unlabelled = ContrastPairs(
        tuple(replace(p, harmful=None, pair_id=None) for p in toxic),
        tuple(replace(p, harmful=None, pair_id=None) for p in safe),
    )
    assert len(unlabelled) == 2


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("given", [["a", "b"], "ab", None, Prompt(text="a"), [Prompt(text="a"), "b"]])
def test_sides_are_lists_of_prompts(given: object) -> None:
    with pytest.raises(TypeError, match=r"toxic holds .*; give a list of Prompt"):
        ContrastPairs(given, [Prompt(text="c"), Prompt(text="d")])  # type: ignore[arg-type]
