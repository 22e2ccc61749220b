"""Train the probers of all layers at once: independent two-layer networks along a leading axis.

    r = ReLU(W1 x + b1),  z = W2 r + b2,      x [layers batch dim], W1 [layers width dim], W2 [layers outputs width]
    m = z            one output (paper):      P(toxic) = σ(m), loss = −log σ(t m)
    m = z₀ − z₁      two outputs (code):      P(toxic) = softmax(z)₀ = σ(m), loss = −log σ(t tanh(m/2))
    with t = +1 for toxic and −1 for safe.

tanh(m/2) is the difference of the two probabilities: the published code hands soft-maxed outputs to
a cross-entropy that applies softmax again, which is this loss (it cannot fall under log(1 + e⁻¹) ≈ 0.313).

The layers share the initial weights and the order of the batches, and nothing else, so each prober
comes out as if trained alone with the same seed; one pass over the data serves them all. At the paper's
batch of 8 a step is mostly the time between calls, so there are few: gradients are written out, batches
are laid out some megabytes at a time, and AdamW is torch's function without its class.

Source: AutoSteer §3.3, eq. 9–10; optimiser and sizes from the published code (AdamW, decay on all weights).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus
from torch.optim.adamw import adamw
from tqdm import trange

from autosteer_lib.epoch_choice import Checkpoint, EpochRecord, KeptWeights

ProberOutput = Literal["sigmoid", "softmax2"]
Labelled = tuple[Float[Tensor, "_ layers dim"], Bool[Tensor, "_"]]  # any number of rows

LAID_OUT_BYTES = (
    1 << 25
)  # batches copied at a time, in float32: all of a small training set, some of a large one
SCORE_ROWS = 1024  # rows a chunk when a whole set is scored: 15 MB of float32 a layer at 3584 dimensions


class ProberWeights(NamedTuple):
    """Weights of one prober, or of many along a leading axis."""

    w1: Float[Tensor, "*layers width dim"]
    b1: Float[Tensor, "*layers width"]
    w2: Float[Tensor, "*layers outputs width"]
    b2: Float[Tensor, "*layers outputs"]


@dataclass(frozen=True, kw_only=True)
class ProberTraining:
    """Hyper-parameters of one training run; see `SafetyProber` for their sources."""

    width: int
    epochs: int
    lr: float
    weight_decay: float
    batch_size: int
    seed: int
    output: ProberOutput
    checkpoint: Checkpoint


class TrainedProber(NamedTuple):
    """One layer's outcome."""

    weights: ProberWeights
    history: list[EpochRecord]
    chosen_epoch: int


def margins(weights: ProberWeights, states: Float[Tensor, "rows layers dim"]) -> Float[Tensor, "layers rows"]:
    """m for every state; P(toxic) = σ(m). Chunked, so that half-precision states are not copied whole."""
    chunks = [_forward(weights, chunk.transpose(0, 1).float())[1] for chunk in states.split(SCORE_ROWS)]
    return _margin(torch.cat(chunks, dim=1))


@torch.no_grad()
def train_probers(
    states: Float[Tensor, "rows layers dim"],
    toxic: Bool[Tensor, " rows"],
    *,
    training: ProberTraining,
    held_out: Labelled | None,
    monitor: Mapping[str, Labelled],
    progress: bool = False,
) -> list[TrainedProber]:
    """Train one prober a layer on the device of `states`; monitored sets are measured and never decide anything."""
    rows, layers, dim = states.shape
    device = states.device
    generator = torch.Generator().manual_seed(
        training.seed
    )  # on the CPU: the same weights and batches on every device
    # One flat tensor that the four weights are views of: AdamW is elementwise, and one call is cheaper than four.
    weights, flat = _packed(_initial_weights(layers, dim, training, generator, device))
    gradients, flat_gradient = _packed(ProberWeights(*(torch.zeros_like(tensor) for tensor in weights)))
    descend = _adamw(flat, flat_gradient, lr=training.lr, weight_decay=training.weight_decay)
    kept = KeptWeights(weights, checkpoint=training.checkpoint, epochs=training.epochs)
    measured = {**({"held_out": held_out} if held_out is not None else {}), **monitor}
    sign = torch.where(toxic.to(device), 1.0, -1.0)
    seen = torch.empty(layers, rows, device=device)
    curves: list[dict[str, tuple[Tensor, Tensor]]] = []
    for epoch in trange(1, training.epochs + 1, desc="prober", unit="epoch", disable=not progress):
        order = torch.randperm(rows, generator=generator).to(device)
        ordered_sign = sign[order]
        signs = ordered_sign.split(training.batch_size)
        margins_seen = seen.split(training.batch_size, dim=1)
        for batch, batch_sign, margin in zip(
            _batches(states, order, training.batch_size), signs, margins_seen, strict=True
        ):
            margin.copy_(_gradients(weights, batch, batch_sign, training.output, into=gradients))
            descend()
        figures = {"train": _figures(seen, ordered_sign, training.output)}
        for name, (set_states, set_toxic) in measured.items():
            set_sign = torch.where(set_toxic.to(device), 1.0, -1.0)
            figures[name] = _figures(margins(weights, set_states.to(device)), set_sign, training.output)
        accuracy, loss = figures.get("held_out", (None, None))
        kept.offer(epoch, accuracy=accuracy, loss=loss)
        curves.append(figures)
    return _per_layer(kept, curves)


def _initial_weights(
    layers: int, dim: int, training: ProberTraining, generator: torch.Generator, device: torch.device
) -> ProberWeights:
    """What nn.Linear draws (uniform within 1/√inputs), once, and the same for every layer."""
    outputs = 1 if training.output == "sigmoid" else 2

    def draw(*shape: int, inputs: int) -> Tensor:
        bound = inputs**-0.5
        single = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        return single.to(device).expand(layers, *shape).clone()

    return ProberWeights(
        w1=draw(training.width, dim, inputs=dim),
        b1=draw(training.width, inputs=dim),
        w2=draw(outputs, training.width, inputs=training.width),
        b2=draw(outputs, inputs=training.width),
    )


def _batches(
    states: Float[Tensor, "rows layers dim"], order: Int[Tensor, " rows"], size: int
) -> Iterator[Float[Tensor, "layers batch dim"]]:
    """Batches of `size` rows in this order, as contiguous float32."""
    row_bytes = 4 * states[0].numel()
    together = max(1, LAID_OUT_BYTES // (row_bytes * size)) * size
    for rows in order.split(together):
        chosen = states.index_select(0, rows).float()
        whole = len(rows) - len(rows) % size
        yield from chosen[:whole].unflatten(0, (-1, size)).transpose(1, 2).contiguous() if whole else ()
        if whole < len(rows):
            yield chosen[whole:].transpose(0, 1).contiguous()


def _adamw(weight: Tensor, gradient: Tensor, *, lr: float, weight_decay: float) -> Callable[[], None]:
    """One step of torch.optim.AdamW at its defaults, without what its class does around it."""
    mean, square, steps = torch.zeros_like(weight), torch.zeros_like(weight), weight.new_zeros(())

    def step() -> None:
        adamw(
            [weight], [gradient], [mean], [square], [], [steps], fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
            lr=lr, weight_decay=weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip

    return step


def _packed(weights: ProberWeights) -> tuple[ProberWeights, Tensor]:
    flat = torch.cat([tensor.flatten() for tensor in weights])
    parts = flat.split([tensor.numel() for tensor in weights])
    return ProberWeights(*(part.view_as(tensor) for part, tensor in zip(parts, weights, strict=True))), flat


def _forward(weights: ProberWeights, batch: Float[Tensor, "layers rows dim"]) -> tuple[Tensor, Tensor]:
    hidden = torch.baddbmm(weights.b1.unsqueeze(1), batch, weights.w1.mT).relu_()
    return hidden, torch.baddbmm(weights.b2.unsqueeze(1), hidden, weights.w2.mT)


def _margin(outputs: Float[Tensor, "layers rows outputs"]) -> Float[Tensor, "layers rows"]:
    return outputs[..., 0] if outputs.shape[-1] == 1 else outputs[..., 0] - outputs[..., 1]


def _losses(
    margin: Float[Tensor, "layers rows"], sign: Float[Tensor, " rows"], output: ProberOutput
) -> Float[Tensor, "layers rows"]:
    certainty = margin if output == "sigmoid" else torch.tanh(margin / 2)
    return softplus(-sign * certainty)


def _gradients(
    weights: ProberWeights,
    batch: Tensor,
    sign: Float[Tensor, " rows"],
    output: ProberOutput,
    *,
    into: ProberWeights,
) -> Float[Tensor, "layers rows"]:
    """Gradients of the batch's mean loss, each layer for itself; returns the margins before the step."""
    hidden, outputs = _forward(weights, batch)
    margin = _margin(outputs)
    if output == "sigmoid":
        slope = torch.sigmoid(-sign * margin) * (-sign / len(sign))
        d_out = slope.unsqueeze(-1)
    else:
        gap = torch.tanh(margin / 2)
        slope = torch.sigmoid(-sign * gap) * (1 - gap * gap) * (-sign / (2 * len(sign)))
        d_out = torch.stack((slope, -slope), dim=-1)
    d_hidden = torch.bmm(d_out, weights.w2).mul_(hidden > 0)
    torch.bmm(d_out.mT, hidden, out=into.w2)
    torch.sum(d_out, dim=1, out=into.b2)
    torch.bmm(d_hidden.mT, batch, out=into.w1)
    torch.sum(d_hidden, dim=1, out=into.b1)
    return margin


def _figures(
    margin: Tensor, sign: Tensor, output: ProberOutput
) -> tuple[Float[Tensor, " layers"], Float[Tensor, " layers"]]:
    """Accuracy at P(toxic) ≥ ½ and mean loss."""
    right = (margin >= 0) == (sign > 0)
    return right.float().mean(dim=1), _losses(margin, sign, output).mean(dim=1)


def _per_layer(kept: KeptWeights, curves: list[dict[str, tuple[Tensor, Tensor]]]) -> list[TrainedProber]:
    splits = list(curves[0])
    # [epochs, splits, 2, layers], fetched from the device in one go; float32 holds 7 digits, so no more are shown
    table = torch.stack(
        [torch.stack([torch.stack(point[split]) for split in splits]) for point in curves]
    ).cpu()
    chosen = kept.chosen.tolist()
    trained = []
    for layer, epoch in enumerate(chosen):
        history = [
            EpochRecord(index + 1, split, accuracy, loss)
            for index, point in enumerate(table[..., layer].tolist())
            for split, (accuracy, loss) in zip(splits, point, strict=True)
        ]
        weights = ProberWeights(*(tensor[layer].cpu().clone() for tensor in kept.kept))
        trained.append(TrainedProber(weights, history, epoch))
    return trained
