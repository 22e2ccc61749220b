"""The head against LM-Steer's formula as the published code computes it, and its training against autograd."""

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.nn.functional import cross_entropy

from autosteer_lib.refusal_head import RefusalHead, _BatchOrder, steer

DIM, WORDS = 10, 37


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def official_logits(h: Tensor, words: Tensor, matrix: Tensor, epsilon: float) -> Tensor:
    """H · (E + ε · E · S)ᵀ, with its words × dim product."""
    return h.float() @ (words.float() + epsilon * words.float() @ matrix).T


def refusals(answers: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """States of answers of four tokens, around one direction a position, and the answer's tokens."""
    centres = randn(4, DIM, seed=99)
    states = (centres + 0.3 * randn(answers, 4, DIM, seed=seed)).flatten(0, 1)
    return states, torch.tensor([3, 11, 20, 5]).repeat(answers), torch.arange(answers).repeat_interleave(4)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, -0.7, 2.0])
def test_head_equals_official_logits(epsilon: float) -> None:
    h, words, matrix = randn(6, DIM, seed=0), randn(WORDS, DIM, seed=1), randn(DIM, DIM, seed=2)
    ours = steer(h, matrix, epsilon=epsilon) @ words.T
    torch.testing.assert_close(ours, official_logits(h, words, matrix, epsilon), atol=1e-4, rtol=1e-5)


def test_identity_matrix_scales_the_logits() -> None:
    h = randn(6, DIM, seed=3)
    torch.testing.assert_close(steer(h, torch.eye(DIM), epsilon=0.1), 1.1 * h)


def test_shut_rows_come_back_bit_for_bit_and_open_ones_are_steered() -> None:
    h, matrix = randn(4, 3, DIM, seed=4), randn(DIM, DIM, seed=5)
    gate = torch.tensor([True, False, True, False])
    steered = steer(h, matrix, epsilon=0.1, gate=gate)
    assert torch.equal(steered[~gate], h[~gate])
    assert torch.equal(steered[gate], steer(h, matrix, epsilon=0.1)[gate])


def test_a_shut_row_survives_a_product_that_is_not_finite() -> None:
    h = randn(2, DIM, seed=6)
    matrix = torch.full((DIM, DIM), float("inf"))
    assert torch.equal(steer(h, matrix, epsilon=0.1, gate=torch.tensor([False, False])), h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_are_rounded_once(dtype: torch.dtype) -> None:
    h, matrix = randn(5, DIM, seed=7).to(dtype), randn(DIM, DIM, seed=8)
    expected = (h.double() + 0.1 * h.double() @ matrix.double().T).to(dtype)
    steered = steer(h, matrix, epsilon=0.1)
    assert steered.dtype == dtype
    torch.testing.assert_close(steered, expected, atol=0, rtol=torch.finfo(dtype).eps)


def test_training_follows_the_published_loop() -> None:
    states, targets, rows = refusals(6, seed=0)
    words = randn(WORDS, DIM, seed=1)
    head = RefusalHead(lr=1e-2, epochs=3, batch_size=2, seed=5, checkpoint="last")
    head.fit(states, targets, words, rows=rows)

    matrix = torch.eye(DIM, requires_grad=True)
    optimiser = torch.optim.AdamW([matrix], lr=1e-2, weight_decay=0.01)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        for answers in torch.randperm(6, generator=generator).split(2):
            tokens = torch.cat([(rows == answer).nonzero().flatten() for answer in answers])
            optimiser.zero_grad()
            cross_entropy(official_logits(states[tokens], words, matrix, 0.1), targets[tokens]).backward()
            optimiser.step()
    torch.testing.assert_close(head.matrix, matrix.detach(), atol=1e-5, rtol=1e-4)


def test_learns_to_say_the_refusal_where_the_model_does_not() -> None:
    states, targets, rows = refusals(12, seed=0)
    words = randn(WORDS, DIM, seed=1)
    held_states, held_targets, _ = refusals(4, seed=7)
    head = RefusalHead(lr=0.1, weight_decay=0.0, epochs=40, batch_size=4)
    head.fit(states, targets, words, rows=rows, held_out=(held_states, held_targets))

    def accuracy(h: Tensor) -> float:
        return ((h @ words.T).argmax(-1) == held_targets).float().mean().item()

    assert accuracy(held_states) < 0.3
    assert accuracy(steer(held_states, head.matrix, epsilon=head.epsilon)) > 0.9
    held_out = [record for record in head.history_ if record.split == "held_out"]
    best = min(held_out, key=lambda record: (-record.accuracy, record.loss, record.epoch))
    assert head.chosen_epoch_ == best.epoch
    assert best.accuracy == pytest.approx(accuracy(steer(held_states, head.matrix, epsilon=0.1)), abs=1e-6)


def test_a_fixed_epoch_is_the_run_of_that_length() -> None:
    states, targets, rows = refusals(6, seed=0)
    words = randn(WORDS, DIM, seed=1)
    long = RefusalHead(lr=1e-2, epochs=5, checkpoint=3).fit(states, targets, words, rows=rows)
    short = RefusalHead(lr=1e-2, epochs=3, checkpoint="last").fit(states, targets, words, rows=rows)
    assert torch.equal(long.matrix, short.matrix)
    assert (long.chosen_epoch_, len(long.history_)) == (3, 5)


def test_batches_hold_whole_answers_once_each() -> None:
    rows = torch.tensor(
        [7, 7, 7, 2, 9, 9, 4, 4, 4, 4]
    )  # of different lengths, as when the question is supervised
    order = _BatchOrder(rows, batch_size=2, seed=0)
    epochs = [list(order.epoch(torch.device("cpu"))) for _ in range(2)]
    for batches in epochs:
        assert sorted(torch.cat(batches).tolist()) == list(range(10))
        members = [set(rows[batch].tolist()) for batch in batches]
        assert [len(member) for member in members] == [2, 2]
        assert set.intersection(*members) == set()
        for batch in batches:  # tokens of an answer in their order
            for row in set(rows[batch].tolist()):
                tokens = batch[rows[batch] == row].tolist()
                assert tokens == sorted(tokens)
    assert [b.tolist() for b in epochs[0]] != [b.tolist() for b in epochs[1]]


def test_a_bias_of_the_output_layer_counts() -> None:
    states, targets, _ = refusals(3, seed=0)
    words = randn(WORDS, DIM, seed=1)
    bias = torch.zeros(WORDS)
    bias[3] = 1e3  # word 3 is always on top
    head = RefusalHead(lr=1e-3, epochs=1, checkpoint="last").fit(states, targets, words, bias=bias)
    assert head.history_[-1].accuracy == pytest.approx(0.25, abs=1e-6)


def test_runs_without_gradients_around_it_and_leaves_the_random_state() -> None:
    states, targets, rows = refusals(3, seed=0)
    words = randn(WORDS, DIM, seed=1)
    before = torch.get_rng_state()
    with torch.no_grad():
        first = (
            RefusalHead(lr=1e-2, epochs=1, checkpoint="last").fit(states, targets, words, rows=rows).matrix
        )
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    again = RefusalHead(lr=1e-2, epochs=1, checkpoint="last").fit(states, targets, words, rows=rows).matrix
    assert torch.equal(first, again)
    assert not first.requires_grad


def test_half_precision_unembedding_trains_in_float32() -> None:
    states, targets, rows = refusals(3, seed=0)
    words = randn(WORDS, DIM, seed=1).half()
    head = RefusalHead(lr=1e-2, epochs=1, checkpoint="last").fit(states.half(), targets, words, rows=rows)
    assert head.matrix.dtype == torch.float32
    assert head.matrix.isfinite().all()


def test_before_fit() -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        _ = RefusalHead().matrix


@pytest.mark.usefixtures("as_a_user")
def test_refusals_of_what_does_not_fit() -> None:
    states, targets, rows = refusals(3, seed=0)
    words = randn(WORDS, DIM, seed=1)
    last = RefusalHead(epochs=1, checkpoint="last")
    with pytest.raises(ValueError, match="belong to one model"):
        last.fit(states, targets, words[:, :-1])
    with pytest.raises(ValueError, match="targets span -100…20"):
        last.fit(states, torch.where(targets == 3, -100, targets), words)
    with pytest.raises(ValueError, match="1 row indices for 12"):
        last.fit(states, targets, words, rows=rows[:1])
    with pytest.raises(ValueError, match="needs held_out="):
        RefusalHead(epochs=1).fit(states, targets, words)
    broken = states.clone()
    broken[5, 0] = float("inf")
    with pytest.raises(ValueError, match="state of token 5 is not finite"):
        last.fit(broken, targets, words)
    with pytest.raises(ValueError, match="epsilon = 0 leaves the matrix"):
        RefusalHead(epsilon=0.0)
    with pytest.raises(ValueError, match=r"\[dim, dim\], received \[2, 3\]"):
        RefusalHead.from_matrix(torch.zeros(2, 3))
