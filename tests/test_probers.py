"""The prober against plain torch modules, and the batched training against separate runs."""

import math

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from autosteer_lib.prober_training import (
    ProberOutput,
    ProberTraining,
    ProberWeights,
    _gradients,
    _initial_weights,
    margins,
)
from autosteer_lib.probers import SafetyProber

DIM = 12


def states(rows: int, *, centre: float, seed: int, layers: int | None = None) -> Tensor:
    shape = (rows, DIM) if layers is None else (rows, layers, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + centre


def sides(rows: int = 24, *, seed: int = 0, layers: int | None = None) -> tuple[Tensor, Tensor]:
    return (
        states(rows, centre=0.6, seed=seed, layers=layers),
        states(rows, centre=-0.6, seed=seed + 1, layers=layers),
    )


def modules(weights: ProberWeights, output: ProberOutput) -> nn.Sequential:
    """The prober as AutoSteer writes it: Linear, ReLU, Linear, then sigmoid (paper) or softmax (code)."""
    width, dim = weights.w1.shape
    last: nn.Module = nn.Sigmoid() if output == "sigmoid" else nn.Softmax(dim=-1)
    net = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, weights.w2.shape[0]), last)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), weights, strict=True):
            parameter.copy_(value)
    return net


def official_loss(net: nn.Module, batch: Tensor, toxic: Tensor, output: ProberOutput) -> Tensor:
    """Paper: binary cross-entropy. Code: cross-entropy on soft-maxed outputs, class 0 = toxic."""
    if output == "sigmoid":
        return nn.functional.binary_cross_entropy(net(batch)[:, 0], toxic.float())
    return nn.functional.cross_entropy(net(batch), (~toxic).long())


def training(output: ProberOutput) -> ProberTraining:
    return ProberTraining(
        width=5, epochs=1, lr=1e-2, weight_decay=0.1, batch_size=8, seed=0, output=output, checkpoint="last"
    )


@pytest.mark.parametrize("output", ["sigmoid", "softmax2"])
def test_written_out_gradients_are_autograds(output: ProberOutput) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = _initial_weights(3, DIM, training(output), generator, torch.device("cpu"))
    for tensor in weights:
        tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    batch = torch.randn(3, 8, DIM, generator=generator)
    toxic = torch.rand(8, generator=generator) > 0.5
    into = ProberWeights(*(torch.zeros_like(tensor) for tensor in weights))
    _gradients(weights, batch, torch.where(toxic, 1.0, -1.0), output, into=into)
    for layer in range(3):
        net = modules(ProberWeights(*(tensor[layer] for tensor in weights)), output)
        official_loss(net, batch[layer], toxic, output).backward()
        for parameter, written in zip(net.parameters(), into, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(written[layer], parameter.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("output", ["sigmoid", "softmax2"])
def test_training_follows_the_published_loop(output: ProberOutput) -> None:
    toxic, safe = sides()
    prober = SafetyProber(
        width=5, epochs=4, lr=1e-2, weight_decay=0.1, output=output, checkpoint="last", seed=3
    )
    prober.fit(toxic, safe)

    generator = torch.Generator().manual_seed(3)
    start = _initial_weights(1, DIM, training(output), generator, torch.device("cpu"))
    net = modules(ProberWeights(*(tensor[0] for tensor in start)), output)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    everything, labels = torch.cat((toxic, safe)), torch.arange(48) < 24
    for _ in range(4):
        for batch in torch.randperm(48, generator=generator).split(8):
            optimiser.zero_grad()
            official_loss(net, everything[batch], labels[batch], output).backward()
            optimiser.step()
    for fitted, parameter in zip(prober.weights_, net.parameters(), strict=True):
        torch.testing.assert_close(fitted, parameter.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prober.score(everything), net(everything)[:, 0].detach(), atol=1e-5, rtol=0)


def test_initial_weights_lie_where_a_linear_layer_draws_them() -> None:
    weights = _initial_weights(
        2, DIM, training("softmax2"), torch.Generator().manual_seed(0), torch.device("cpu")
    )
    for tensor, inputs in zip(weights, (DIM, DIM, 5, 5), strict=True):
        assert tensor.abs().max() <= inputs**-0.5
        assert torch.equal(tensor[0], tensor[1])
    assert [list(tensor.shape) for tensor in weights] == [[2, 5, DIM], [2, 5], [2, 2, 5], [2, 2]]


def fitted_on_two_points(scale: float, output: ProberOutput) -> SafetyProber:
    points = torch.eye(DIM)[:2] * scale
    prober = SafetyProber(epochs=100, lr=1e-2, batch_size=2, output=output, checkpoint="last")
    return prober.fit(points[:1], points[1:])


def test_double_softmax_loss_has_a_floor() -> None:
    last = fitted_on_two_points(10.0, "softmax2").history_[-1]
    assert last.accuracy == 1.0
    assert last.loss == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-3)


def test_double_softmax_cannot_unlearn_a_certain_mistake() -> None:
    """At states this large the initial weights are certain, and wrong about one point."""
    stuck, repaired = (
        fitted_on_two_points(1000.0, output).history_[-1] for output in ("softmax2", "sigmoid")
    )
    assert stuck.accuracy == 0.5
    assert stuck.loss == pytest.approx((math.log(1 + math.e) + math.log(1 + math.exp(-1))) / 2, abs=1e-3)
    assert repaired.accuracy == 1.0
    assert repaired.loss < 1e-3


@pytest.mark.parametrize("output", ["sigmoid", "softmax2"])
@pytest.mark.parametrize("checkpoint", ["held_out", "last", 3])
def test_all_layers_at_once_equal_separate_runs(output: ProberOutput, checkpoint: str | int) -> None:
    toxic, safe = sides(layers=3)
    held_toxic, held_safe = sides(6, seed=10, layers=3)
    watched = (states(5, centre=0.0, seed=20, layers=3), torch.tensor([1, 0, 1, 1, 0]).bool())
    settings = {"width": 6, "epochs": 6, "lr": 5e-3, "output": output, "checkpoint": checkpoint, "seed": 1}
    together = SafetyProber(**settings).fit_all_layers(  # type: ignore[arg-type]
        toxic, safe, held_out=(held_toxic, held_safe), monitor={"watched": watched}
    )
    for layer, fitted in enumerate(together):
        alone = SafetyProber(**settings).fit(  # type: ignore[arg-type]
            toxic[:, layer],
            safe[:, layer],
            held_out=(held_toxic[:, layer], held_safe[:, layer]),
            monitor={"watched": (watched[0][:, layer], watched[1])},
        )
        assert fitted.chosen_epoch_ == alone.chosen_epoch_
        for left, right in zip(fitted.weights_, alone.weights_, strict=True):
            torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)
        for left_point, right_point in zip(fitted.history_, alone.history_, strict=True):
            assert left_point[:2] == right_point[:2]
            assert left_point[2:] == pytest.approx(right_point[2:], abs=1e-5)


def test_held_out_epoch_is_the_best_and_of_equals_the_earliest() -> None:
    toxic, safe = sides()
    prober = SafetyProber(width=6, epochs=12, lr=5e-3)
    prober.fit(toxic, safe, held_out=sides(7, seed=30))
    held_out = [record for record in prober.history_ if record.split == "held_out"]
    best = min(held_out, key=lambda record: (-record.accuracy, record.loss, record.epoch))
    assert prober.chosen_epoch_ == best.epoch
    kept = SafetyProber(width=6, epochs=12, lr=5e-3, checkpoint=best.epoch).fit(toxic, safe)
    assert all(torch.equal(a, b) for a, b in zip(kept.weights_, prober.weights_, strict=True))


def test_history_has_every_epoch_and_split_and_states_what_the_weights_do() -> None:
    toxic, safe = sides()
    held_out = sides(7, seed=30)
    one_class = states(4, centre=0.6, seed=31)
    prober = SafetyProber(width=6, epochs=5, lr=5e-3, checkpoint="last")
    prober.fit(
        toxic, safe, held_out=held_out, monitor={"pictures": (one_class, torch.ones(4, dtype=torch.bool))}
    )
    names = [(record.epoch, record.split) for record in prober.history_]
    assert names == [(epoch, split) for epoch in range(1, 6) for split in ("train", "held_out", "pictures")]
    scores = torch.cat((prober.score(held_out[0]), 1 - prober.score(held_out[1])))
    last = prober.history_[-2]
    assert last.accuracy == pytest.approx((scores >= 0.5).float().mean().item(), abs=1e-6)
    assert last.loss == pytest.approx(-scores.log().mean().item(), abs=1e-5)


def test_monitored_sets_do_not_influence_the_choice() -> None:
    toxic, safe = sides()
    plain = SafetyProber(epochs=5, lr=1e-2).fit(toxic, safe, held_out=sides(5, seed=40))
    misleading = {"test": (states(9, centre=0.6, seed=41), torch.zeros(9, dtype=torch.bool))}
    watched = SafetyProber(epochs=5, lr=1e-2).fit(toxic, safe, held_out=sides(5, seed=40), monitor=misleading)
    assert plain.chosen_epoch_ == watched.chosen_epoch_
    assert all(torch.equal(a, b) for a, b in zip(plain.weights_, watched.weights_, strict=True))


def test_seed_decides_and_the_global_random_state_does_not() -> None:
    toxic, safe = sides()

    def fitted(seed: int) -> Tensor:
        return SafetyProber(epochs=2, seed=seed, lr=1e-2, checkpoint="last").fit(toxic, safe).weights_.w1

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fitted(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first, fitted(0))
    assert not torch.equal(first, fitted(1))


def test_learns_half_precision_states_and_scores_rows_independently() -> None:
    toxic, safe = (side.to(torch.float16) for side in sides(60))
    prober = SafetyProber(epochs=20, lr=1e-2, checkpoint="last").fit(toxic, safe)
    scores = prober.score(torch.cat((toxic, safe)))
    assert scores.dtype == torch.float32
    assert ((scores[:60] >= 0.5).float().mean() + (scores[60:] < 0.5).float().mean()) / 2 > 0.95
    single = torch.cat([prober.score(row[None]) for row in toxic[:5]])
    torch.testing.assert_close(single, scores[:5], atol=1e-6, rtol=0)


def test_scores_of_the_paper_are_the_sigmoid_of_the_margin() -> None:
    prober = SafetyProber(epochs=1, checkpoint="last").fit(*sides(4))
    stacked = ProberWeights(*(tensor[None] for tensor in prober.weights_))
    some = states(3, centre=0, seed=50)
    assert torch.equal(prober.score(some), torch.sigmoid(margins(stacked, some[:, None])[0]))


def test_saved_tensors_restore_the_prober() -> None:
    prober = SafetyProber(epochs=2, checkpoint="last", output="softmax2").fit(*sides(4))
    restored = SafetyProber.from_tensors(
        prober.tensors,
        hyperparameters=prober.hyperparameters,
        history=prober.history_,
        chosen_epoch=prober.chosen_epoch_,
    )
    some = states(3, centre=0, seed=51)
    assert torch.equal(restored.score(some), prober.score(some))
    assert restored.hyperparameters == prober.hyperparameters


def test_before_fit() -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        SafetyProber().score(torch.zeros(1, DIM))


@pytest.mark.usefixtures("as_a_user")
def test_refusals() -> None:
    toxic, safe = sides(4)
    last = SafetyProber(epochs=1, checkpoint="last")
    with pytest.raises(ValueError, match="needs both classes"):
        last.fit(toxic, safe[:0])
    with pytest.raises(ValueError, match="must agree in all but the number of rows"):
        last.fit(toxic, safe[:, :-1])
    with pytest.raises(ValueError, match="fit_all_layers"):
        last.fit(toxic[:, None], safe[:, None])
    with pytest.raises(ValueError, match="needs held_out="):
        SafetyProber(epochs=1).fit(toxic, safe)
    with pytest.raises(ValueError, match="taken by the training's own curves"):
        last.fit(toxic, safe, monitor={"train": (toxic, torch.ones(4, dtype=torch.bool))})
    with pytest.raises(ValueError, match="monitor 'm': states"):
        last.fit(toxic, safe, monitor={"m": (toxic, torch.ones(3, dtype=torch.bool))})
    broken = safe.clone()
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match="row 6 at layer column 0 is not finite"):
        last.fit(toxic, broken)
    with pytest.raises(ValueError, match="reads states"):
        last.fit(toxic, safe).score(torch.zeros(2, DIM + 1))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, "prober width = 0"),
        ({"lr": 0.0}, "lr = 0.0 must be above 0"),
        ({"output": "linear"}, "'sigmoid'"),
        ({"checkpoint": 0}, "pick an epoch of 1…200"),
        ({"checkpoint": 201}, "pick an epoch of 1…200"),
        ({"checkpoint": "best"}, "'held_out', 'last' or an epoch"),
    ],
)
def test_hyper_parameters_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SafetyProber(**settings)  # type: ignore[arg-type]
