"""Stage 1: teach the vision tower to see, by classification, before any language.

    loss = CE(thing) + 0.3·CE(colour) + 0.3·CE(count),   heads on max-pooled patch states

End to end from scratch the language model never gets there: 1,800 joint steps left 13–27 % of
pictures named, while 2,500 steps of this stage (a minute and a half) name 99 % (feasibility study).
The heads are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaOnevisionForConditionalGeneration

from autosteer_lib.organism import rendering
from autosteer_lib.organism.examples import to_pixels
from autosteer_lib.organism.language import NUMBERS
from autosteer_lib.organism.things import COLOURS, all_things

_SHIFT = 2  # px
_IGNORE = -100  # cross_entropy's own mark for "no label"


@dataclass(frozen=True, kw_only=True)
class VisionRecipe:
    """Settings of the stage; learning rate and steps as measured in the feasibility study."""

    steps: int = 2_500
    batch_size: int = 128
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    pool: int = 24_000  # pictures drawn once and reused, shifted by up to two pixels each time
    held_out: int = 2_000  # of them, for the accuracy that is logged


@dataclass(frozen=True)
class _Pictures:
    pixels: Tensor
    thing: Tensor
    colour: Tensor
    count: Tensor
    written: Tensor


def _draw_pool(rng: np.random.Generator, size: int) -> _Pictures:
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
    return _Pictures(torch.tensor(to_pixels(np.stack(pixels))), *columns)


class _Heads(nn.Module):
    """Patch states → logits of thing, colour, count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.sizes = [len(all_things()), len(COLOURS), len(NUMBERS)]
        self.classify = nn.Linear(width, sum(self.sizes))

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        pooled = F.gelu(self.mix(patches)).amax(1)
        return torch.split(self.classify(pooled), self.sizes, dim=-1)


def pretrain_vision(
    model: LlavaOnevisionForConditionalGeneration,
    *,
    recipe: VisionRecipe,
    seed: int,
    on_step: Callable[[int, float], None],
) -> dict[str, float]:
    """Train the tower in place; returns held-out accuracies (drawn, written, counted)."""
    rng = np.random.default_rng(seed)
    data = _draw_pool(rng, recipe.pool)
    tower = model.model.vision_tower
    device = next(tower.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = _Heads(tower.config.hidden_size).to(device)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.steps, pct_start=0.1)
    tower.train()
    for step in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(recipe.held_out, recipe.pool, recipe.batch_size))
        dy, dx = rng.integers(-_SHIFT, _SHIFT + 1, 2)
        pixels = torch.roll(data.pixels[rows], (int(dy), int(dx)), (2, 3)).to(device)
        thing, colour, count = heads(tower(pixel_values=pixels).last_hidden_state)
        loss = (
            F.cross_entropy(thing, data.thing[rows].to(device))
            + 0.3 * F.cross_entropy(colour, data.colour[rows].to(device))
            + 0.3 * F.cross_entropy(count, data.count[rows].to(device))
        )
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 25 == 0 or step == recipe.steps - 1:
            on_step(step, loss.item())
    tower.eval()
    return _held_out_accuracy(tower, heads, data, device, rows=slice(0, recipe.held_out))


@torch.no_grad()
def _held_out_accuracy(
    tower: nn.Module, heads: _Heads, data: _Pictures, device: torch.device, *, rows: slice
) -> dict[str, float]:
    thing, _, count = heads(tower(pixel_values=data.pixels[rows].to(device)).last_hidden_state)
    right = (thing.argmax(-1).cpu() == data.thing[rows]).float()
    named, written = data.thing[rows] != _IGNORE, data.written[rows] == 1
    counted = data.count[rows] != _IGNORE
    return {
        "drawn symbols named": right[named & ~written].mean().item(),
        "written words named": right[written].mean().item(),
        "symbols counted": (count.argmax(-1).cpu() == data.count[rows])[counted].float().mean().item(),
    }
