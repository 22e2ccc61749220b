"""Arditi et al.'s formulas and rules: scores as their code writes them, and the choice of a candidate."""

import math

import pytest
import torch
from torch import Tensor

from autosteer_lib.refusal_candidates import (
    Candidate,
    CandidateScores,
    ablated,
    candidate_directions,
    candidate_layers,
    next_token_kl,
    refusal_score,
    refusal_tokens,
    select,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_score_is_the_log_odds_of_a_refusals_first_token() -> None:
    logits = draw(4, 9)
    p = logits.double().softmax(-1)[:, [2, 5]].sum(-1)
    torch.testing.assert_close(refusal_score(logits, [2, 5]), torch.log(p / (1 - p)), atol=1e-6, rtol=0)
    certain = torch.full((1, 9), -1e4)
    certain[0, 2] = 0.0
    assert refusal_score(certain, [2]).item() == pytest.approx(math.log(1 / 1e-8), abs=1e-3)


def test_kl_is_torchs() -> None:
    plain, changed = draw(4, 9), draw(4, 9, seed=1)
    expected = torch.nn.functional.kl_div(
        changed.double().log_softmax(-1), plain.double().log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(next_token_kl(plain, changed), expected, atol=1e-4, rtol=0)
    assert next_token_kl(plain, plain).abs().max() == 0


def test_ablation_leaves_nothing_along_the_direction() -> None:
    states, unit = draw(2, 3, 8), torch.nn.functional.normalize(draw(8, seed=2), dim=0)
    without = ablated(states, unit)
    assert (without @ unit).abs().max() < 1e-6
    torch.testing.assert_close(without, states @ (torch.eye(8) - torch.outer(unit, unit)), atol=1e-6, rtol=0)
    torch.testing.assert_close(ablated(without, unit), without, atol=1e-6, rtol=0)
    assert ablated(states.bfloat16(), unit).dtype == torch.bfloat16


def test_candidates_are_differences_of_means_by_position_and_layer() -> None:
    harmful, harmless = draw(5, 3, 2, 8), draw(7, 3, 2, 8, seed=1)
    harmful[:, 0, 1], harmless[:, 0, 1] = 1.0, 1.0  # a template's token before the first block
    r = candidate_directions(harmful, harmless)
    assert r.shape == (2, 3, 8)
    torch.testing.assert_close(r[0, 2], harmful[:, 2, 0].mean(0) - harmless[:, 2, 0].mean(0))
    assert not r[1, 0].any()


def test_refusal_tokens_are_the_most_frequent_that_other_answers_do_not_begin_with() -> None:
    assert refusal_tokens([4] * 9 + [7], [5, 6]) == (4,)
    assert refusal_tokens([4] * 6 + [7] * 4, [5, 6]) == (4, 7)
    assert refusal_tokens([4] * 6 + [7] * 4, [7] * 8 + [5, 6]) == (4,)  # 7 begins most answers
    assert refusal_tokens([9, 8, 7, 6, 5, 4], [1]) == (4, 5, 6, 7, 8)  # equals by id, five at most
    assert refusal_tokens([4, 7], [], coverage=0.5) == (4,)
    with pytest.raises(ValueError, match="the model refused nothing"):
        refusal_tokens([], [1, 2])
    with pytest.raises(ValueError, match="none of the 1 first tokens of 2 refusals is more frequent"):
        refusal_tokens([1, 1], [1, 1])


def test_the_lowest_bypass_of_those_that_pass_is_kept() -> None:
    nan = float("nan")
    scores = CandidateScores(
        bypass=torch.tensor([[-9.0, -8.0, -7.0, -9.5], [nan, -6.0, -5.0, -9.9]]),
        induced=torch.tensor([[-0.1, 1.0, 0.0, 1.0], [nan, 1.0, 1.0, 1.0]]),
        kl=torch.tensor([[0.0, 0.11, 0.09, 0.0], [nan, 0.0, 0.0, 0.0]]),
    )
    layers = candidate_layers(4, share=0.8)
    assert layers == (0, 1, 2)
    assert select(scores, layers=layers, least_induced=0.0, most_kl=0.1) == Candidate(-2, 2)
    assert select(scores, layers=layers, least_induced=0.0, most_kl=None) == Candidate(-2, 1)
    assert select(scores, layers=layers, least_induced=None, most_kl=None) == Candidate(-2, 0)
    assert select(scores, layers=range(4), least_induced=0.0, most_kl=0.1) == Candidate(-1, 3)
    with pytest.raises(
        ValueError,
        match=r"none of 8 candidate directions passes \(5 induced below 2.0, 2 layer too deep, 1 no",
    ):
        select(scores, layers=layers, least_induced=2.0, most_kl=None)
