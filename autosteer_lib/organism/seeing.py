"""What every first stage teaches: labelled pictures, and the heads that read them off what is seen.

    loss = CE(thing) + w·CE(colour) + 0.3·CE(count),   heads on max-pooled states of the patches

The heads are thrown away. Which network sees, and what else it has to learn meanwhile, is the architecture's
own: llava_onevision_tower_training.py, chameleon_tokenizer_training.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from autosteer_lib.organism import rendering
from autosteer_lib.organism.examples import to_pixels
from autosteer_lib.organism.language import NUMBERS
from autosteer_lib.organism.things import COLOURS, all_things

SHIFT = 2  # px; pictures are drawn once and shifted by up to so many each time
_IGNORE = -100  # cross_entropy's own mark for "no label"
Readings = tuple[Tensor, ...]
"""Logits of thing, colour, count."""


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and what they show; a label that is not asked for is −100."""

    pixels: Tensor
    thing: Tensor
    colour: Tensor
    count: Tensor
    written: Tensor

    def shifted(self, rng: np.random.Generator, rows: Tensor) -> Tensor:
        """Pixels of these rows, all moved alike."""
        dy, dx = rng.integers(-SHIFT, SHIFT + 1, 2)
        return torch.roll(self.pixels[rows], (int(dy), int(dx)), (2, 3))


def draw_labelled(rng: np.random.Generator, size: int) -> LabelledPictures:
    """40 % words, 15 % several symbols (counted, their thing not asked), the rest single symbols."""
    names, palette = all_things(), list(COLOURS)
    pixels, labels = [], []
    for _ in range(size):
        thing, colour = int(rng.integers(len(names))), int(rng.integers(len(palette)))
        kind = rng.random()
        if kind < 0.40:
            picture = rendering.write(rng, names[thing], colour=palette[colour])
            labels.append((thing, colour, _IGNORE, 1))
        elif kind < 0.55:
            count = int(rng.integers(len(NUMBERS)))
            picture = rendering.draw_several(rng, names[thing], colour=palette[colour], count=count + 1)
            labels.append((_IGNORE, colour, count, 0))
        else:
            picture = rendering.draw(rng, names[thing], colour=palette[colour])
            labels.append((thing, colour, _IGNORE, 0))
        pixels.append(picture)
    columns = torch.tensor(labels).T
    return LabelledPictures(torch.tensor(to_pixels(np.stack(pixels))), *columns)


class Heads(nn.Module):
    """Patch states → logits of thing, colour, count."""

    def __init__(self, width: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        self.mix = nn.Linear(width, hidden)
        self.sizes = [len(all_things()), len(COLOURS), len(NUMBERS)]
        self.classify = nn.Linear(hidden, sum(self.sizes))

    def forward(self, patches: Float[Tensor, "pictures patches width"]) -> Readings:
        pooled = F.gelu(self.mix(patches)).amax(1)
        return torch.split(self.classify(pooled), self.sizes, dim=-1)


def reading_loss(
    read: Readings, data: LabelledPictures, rows: Tensor, *, colour_weight: float = 0.3
) -> Tensor:
    """How wrongly the heads read these rows; 0.3 is enough for colours where nothing is rounded."""
    thing, colour, count = read
    device = thing.device
    loss = F.cross_entropy(thing, data.thing[rows].to(device))
    loss = loss + colour_weight * F.cross_entropy(colour, data.colour[rows].to(device))
    counts = data.count[rows].to(device)
    if (
        counts == _IGNORE
    ).all():  # a small batch can hold nothing to count, and the mean of nothing is no number
        return loss
    return loss + 0.3 * F.cross_entropy(count, counts)


def reading_accuracy(read: Readings, data: LabelledPictures, rows: slice) -> dict[str, float]:
    """Shares of these rows that the heads read rightly, by what is asked."""
    thing, colour, count = (logits.argmax(-1).cpu() for logits in read)
    right = (thing == data.thing[rows]).float()
    named, written = data.thing[rows] != _IGNORE, data.written[rows] == 1
    counted = data.count[rows] != _IGNORE
    return {
        "drawn symbols named": right[named & ~written].mean().item(),
        "written words named": right[written].mean().item(),
        "symbols counted": (count == data.count[rows])[counted].float().mean().item(),
        "colours named": (colour == data.colour[rows]).float().mean().item(),
    }
