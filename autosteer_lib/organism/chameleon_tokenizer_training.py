"""Stage 1 of Chameleon: make codes out of pictures, and make them say what is seen.

    z = encode(picture),  e = the codebook's nearest row at each of 4 × 4 places
    loss = |picture − draw(e)|² + (z − sg e)² / s² + w · what the heads read wrongly off e
    e follows the states that choose it, as a moving mean

That is a VQ-VAE (van den Oord et al. 2017, App. A.1), in units of the states' own spread s. Make-A-Scene, which
Chameleon's own tokenizer follows, adds losses on faces and objects so that codes keep what people look for; the last
term is that idea here: CE of thing, colour and count (seeing.py). The gradient of e goes straight through to z.

At first nothing is rounded (e = z): what a picture shows is learnt as fast as by any convolutional network. Then the
codebook starts as the k means of the states that there are, and a growing share of pictures is rounded, in the end
all. Measured: rounded from the first step, 45,000 pictures had taught next to nothing; rounded all at once
half-way, most of what had been learnt was lost; with a codebook that learns by gradient it lagged behind the states
and the loss leapt. A code that no picture chose for a while is put where a state now is, else
part of the codebook stays unused. The drawing half and the heads are thrown away, and the tokenizer is frozen from
here on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ChameleonForConditionalGeneration, PreTrainedModel

from autosteer_lib.organism.architecture import OnStep
from autosteer_lib.organism.seeing import (
    Heads,
    LabelledPictures,
    draw_labelled,
    reading_accuracy,
    reading_loss,
)

_HEAD_WIDTH = 128
_WINDOW = 100  # steps in which a code must be chosen at least once
_CODEBOOK_PICTURES = 1_000  # whose states the codebook starts from
_MEANS = 10  # rounds of k-means
_DECAY = 0.98  # of the moving mean: fifty steps, a hundred states a code
_RARE = 1e-3  # a row chosen less than this stays where it is
_BATCH = 200  # pictures at a time when nothing is learnt


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Settings of the stage."""

    steps: int = 6_000
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    pool: int = 24_000  # pictures drawn once and reused, shifted by up to two pixels each time
    held_out: int = 2_000  # of them, for the accuracy that is logged
    reading: float = 1.0  # w
    colour: float = 0.3  # of colours in it
    unrounded: float = 0.35  # of the steps; then pictures are rounded in a growing share,
    rounded: float = 0.7  # from here on all of them,
    settled: float = 0.9  # and from here on no code is moved by hand


class _Drawer(nn.Module):
    """Codes → picture: the half of an autoencoder that only training needs."""

    def __init__(self, channels: int, *, stride: int, hidden: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, 3 * stride**2, 3, padding=1),
            nn.PixelShuffle(stride),
        )

    def forward(self, latents: Float[Tensor, "pictures channels rows columns"]) -> Tensor:
        drawn: Tensor = self.layers(latents)
        return drawn


def train_tokenizer(
    model: ChameleonForConditionalGeneration,
    *,
    recipe: TokenizerRecipe,
    seed: int,
    on_step: OnStep,
) -> dict[str, float]:
    """Train the VQ tokenizer in place; returns held-out accuracies, error and use of the codebook."""
    rng = np.random.default_rng(seed)
    data = draw_labelled(rng, recipe.pool)
    vq: PreTrainedModel = model.model.vqmodel
    device = next(vq.parameters()).device
    config = vq.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawer = _Drawer(config.latent_channels, stride=2 ** (len(config.channel_multiplier) - 1)).to(device)
        heads = Heads(config.embed_dim, hidden=_HEAD_WIDTH).to(device)
    vq.quantize.requires_grad_(False)
    parameters = [p for part in (vq, drawer, heads) for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, recipe.steps, pct_start=0.1)
    vq.train().to(memory_format=torch.channels_last)
    book: _Codebook | None = None
    first_rounded = round(recipe.unrounded * recipe.steps)
    for step in range(recipe.steps):
        if step == first_rounded:
            some = torch.from_numpy(rng.integers(recipe.held_out, recipe.pool, _CODEBOOK_PICTURES))
            book = _Codebook(vq.quantize.embedding.weight, _states(vq, data.pixels[some]), rng)
        rows = torch.from_numpy(rng.integers(recipe.held_out, recipe.pool, recipe.batch_size))
        pixels = data.shifted(rng, rows).to(device, memory_format=torch.channels_last)
        # Half precision in the convolutions alone: twice as fast, and rounding is what is learnt here anyway.
        with torch.autocast(device.type, dtype=torch.bfloat16):
            states = vq.quant_conv(vq.encoder(pixels))
        states, distance = states.float(), torch.zeros((), device=device)
        if book is not None:
            nearest, _, codes = vq.quantize(states)
            distance = (states - nearest.detach()).square().mean() / book.spread
            book.follow(codes, _places(states.detach()))
            if (step + 1 - first_rounded) % _WINDOW == 0 and step < recipe.settled * recipe.steps:
                book.revive(_places(states.detach()))
            share = (step / recipe.steps - recipe.unrounded) / (recipe.rounded - recipe.unrounded)
            rounded = torch.from_numpy(rng.random(len(states)) < share).to(device)
            states = torch.where(rounded[:, None, None, None], nearest, states)
        loss = (
            F.mse_loss(drawer(vq.post_quant_conv(states)), pixels)
            + distance
            + recipe.reading
            * reading_loss(heads(states.flatten(2).transpose(1, 2)), data, rows, colour_weight=recipe.colour)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 25 == 0 or step == recipe.steps - 1:
            on_step(step, loss.item())
    vq.eval().to(memory_format=torch.contiguous_format)
    return _held_out(vq, drawer, heads, data, rows=slice(0, recipe.held_out), device=device)


class _Codebook:
    """Rows that follow the states: k-means to begin with, then a moving mean."""

    def __init__(self, rows: Tensor, states: Float[Tensor, "places width"], rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.spread = states.var()
        rows.copy_(states[torch.from_numpy(rng.permutation(len(states))[: len(rows)]).to(rows.device)])
        for _ in range(_MEANS):
            codes = torch.cdist(states, rows).argmin(1)
            self.counts, self.sums = self._tally(codes, states)
            self._move()
        self.chosen = torch.zeros_like(self.counts)

    def follow(self, codes: Int[Tensor, "places"], states: Float[Tensor, "places width"]) -> None:
        """Move each row towards the states that chose it."""
        counts, sums = self._tally(codes, states)
        self.counts.lerp_(counts, 1 - _DECAY)
        self.sums.lerp_(sums, 1 - _DECAY)
        self.chosen += counts
        self._move()

    def revive(self, states: Float[Tensor, "places width"]) -> None:
        """Put the rows that nothing chose since the last time where some of these states are."""
        unused = (self.chosen == 0).nonzero().flatten()
        picked = torch.from_numpy(self.rng.integers(len(states), size=len(unused))).to(states.device)
        self.rows[unused] = states[picked]
        self.sums[unused], self.counts[unused] = states[picked], 1.0
        self.chosen.zero_()

    def _tally(self, codes: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(codes, minlength=len(self.rows)).to(states.dtype)
        return counts, torch.zeros_like(self.rows).index_add_(0, codes, states)

    def _move(self) -> None:
        known = self.counts > _RARE
        self.rows[known] = self.sums[known] / self.counts[known, None]


def _places(states: Float[Tensor, "pictures width rows columns"]) -> Float[Tensor, "places width"]:
    return states.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def _states(
    vq: PreTrainedModel, pixels: Float[Tensor, "pictures 3 side side"]
) -> Float[Tensor, "places width"]:
    """What the places of pictures hold before they are rounded."""
    device = next(vq.parameters()).device
    return torch.cat([_places(vq.quant_conv(vq.encoder(part.to(device)))) for part in pixels.split(_BATCH)])


@torch.no_grad()
def codes_of(
    vq: PreTrainedModel, pixels: Float[Tensor, "pictures 3 side side"]
) -> Int[Tensor, "pictures places"]:
    """The codes of pictures, a few at a time."""
    device = next(vq.parameters()).device
    parts = [
        vq.encode(part.to(device), return_dict=True).image_tokens.view(len(part), -1)
        for part in pixels.split(_BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def _held_out(
    vq: PreTrainedModel,
    drawer: nn.Module,
    heads: Heads,
    data: LabelledPictures,
    *,
    rows: slice,
    device: torch.device,
) -> dict[str, float]:
    codes = codes_of(vq, data.pixels[rows])
    latents = vq.quantize.embedding(codes)
    side = round(codes.shape[1] ** 0.5)
    grid = latents.transpose(1, 2).unflatten(2, (side, side))
    drawn = drawer(vq.post_quant_conv(grid))
    use = torch.bincount(codes.flatten(), minlength=vq.config.num_embeddings) / codes.numel()
    return {
        **reading_accuracy(heads(latents), data, rows),
        "error of the drawing": F.mse_loss(drawn, data.pixels[rows].to(device)).item(),
        "codes in use": int((use > 0).sum()),
        "perplexity of the codes": torch.special.entr(use).sum().exp().item(),
    }
