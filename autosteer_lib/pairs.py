"""Contrast pairs: a toxic prompt and its safe twin, alike in all but the harm.

AutoSteer's twins share the picture and the sentence's skeleton; content words that make it harmful
are replaced. So whatever separates their states is the harm and not the topic: SAS measures how
alike those differences are, and the prober learns from both sides.

A split keeps twins together. A toxic prompt in training and its twin held out would let the prober
know the picture and half of the words.

Source: AutoSteer §3.2 and appendix A.1; pair-wise split as in the published training script.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from autosteer_lib.prompts import Prompt, prompts_of


@dataclass(frozen=True, eq=False)
class ContrastPairs:
    """Row i of `toxic` and row i of `safe` are twins; checked at construction.

    Raises:
        TypeError: a side that is no list of prompts.
        ValueError: sides of unequal length, fewer than two pairs, a label or a pair id that
            contradicts its side, twins with different pictures, or twins that are the same prompt.
    """

    toxic: tuple[Prompt, ...]
    safe: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        # Lists are welcome; a frozen value must not change under its reader.
        object.__setattr__(self, "toxic", prompts_of(self.toxic, name="toxic"))
        object.__setattr__(self, "safe", prompts_of(self.safe, name="safe"))
        if len(self.toxic) != len(self.safe):
            raise ValueError(
                f"{len(self.toxic)} toxic prompts and {len(self.safe)} safe ones: "
                "every toxic prompt needs its twin, in the same order"
            )
        if len(self.toxic) < 2:
            raise ValueError(
                f"{len(self.toxic)} contrast pair: differences are compared between pairs, so give at least 2"
            )
        for index, (toxic, safe) in enumerate(zip(self.toxic, self.safe, strict=True)):
            _check_twins(index, toxic, safe)

    def __len__(self) -> int:
        return len(self.toxic)

    def subset(self, indices: Sequence[int]) -> "ContrastPairs":
        """The pairs at these positions, in this order."""
        return ContrastPairs(tuple(self.toxic[i] for i in indices), tuple(self.safe[i] for i in indices))

    def split(self, *, held_out: float = 0.1, seed: int) -> tuple["ContrastPairs", "ContrastPairs"]:
        """(training pairs, held-out pairs), twins together; see `split_indices`."""
        train, kept_back = split_indices(len(self), held_out=held_out, seed=seed, least=2)
        return self.subset(train), self.subset(kept_back)


def split_indices(
    rows: int, *, held_out: float = 0.1, seed: int, least: int = 1
) -> tuple[list[int], list[int]]:
    """Positions for training and positions held out, at least `least` of each.

    The same shuffle as the published script's, so its 10 % at seed 42 can be had again.

    Raises:
        ValueError: a share that is not inside (0, 1), or too few rows to have both parts.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out = {held_out} must be a share between 0 and 1, for example 0.1")
    if rows < 2 * least:
        raise ValueError(
            f"{rows} rows cannot be split into two parts of at least {least}, one to train on and one held out; give "
            f"{2 * least} or more"
        )
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    count = min(max(int(held_out * rows), least), rows - least)
    return order[count:], order[:count]


def _check_twins(index: int, toxic: Prompt, safe: Prompt) -> None:
    name = f"pair {index} (toxic {toxic.id!r}, safe {safe.id!r})"
    if toxic.harmful is False or safe.harmful is True:
        raise ValueError(
            f"{name}: harmful is {toxic.harmful} on the toxic side and {safe.harmful} on the safe one; "
            "the sides are swapped or mislabelled"
        )
    if toxic.pair_id is not None and safe.pair_id is not None and toxic.pair_id != safe.pair_id:
        raise ValueError(
            f"{name}: pair ids {toxic.pair_id!r} and {safe.pair_id!r} differ; bring both sides into the same order"
        )
    if toxic.visual_fingerprint != safe.visual_fingerprint:
        raise ValueError(
            f"{name}: the twins show different pictures, so their contrast would be the picture's; give both the same one"
        )
    if toxic.text == safe.text:
        raise ValueError(
            f"{name}: the twins are the same prompt ({toxic.text!r}); their contrast has no direction, drop the pair"
        )
