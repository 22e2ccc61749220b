"""SAS against its printed definition, its range, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from autosteer_lib import sas
from autosteer_lib.sas import (
    candidate_layers,
    contrast_cosines,
    safety_awareness_score,
    sas_by_pair_count,
    select_layer,
)


def states(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pairwise_mean(toxic: Tensor, safe: Tensor) -> float:
    """Eq. 8 as the published code computes it: the mean of the upper triangle of the N×N cosines."""
    cosines = cosine_similarity((safe - toxic).double().numpy())
    return float(np.mean(cosines[np.triu_indices(len(toxic), k=1)]))


@settings(max_examples=25, deadline=None)
@given(pairs=st.integers(2, 30), dim=st.integers(1, 24), shift=st.floats(-3, 3), seed=st.integers(0, 999))
def test_equals_the_mean_over_all_pairs_of_pairs(pairs: int, dim: int, shift: float, seed: int) -> None:
    toxic, safe = states(pairs, 3, dim, seed=seed) + shift, states(pairs, 3, dim, seed=seed + 1000)
    expected = [pairwise_mean(toxic[:, layer], safe[:, layer]) for layer in range(3)]
    assert safety_awareness_score(toxic, safe).tolist() == pytest.approx(expected, abs=1e-6)


def test_near_cancellation_keeps_six_digits_at_the_papers_size() -> None:
    toxic, safe = states(3000, 1, 64, seed=0), states(3000, 1, 64, seed=1)
    score = safety_awareness_score(toxic, safe)
    assert score.dtype == torch.float64
    assert score.item() == pytest.approx(pairwise_mean(toxic[:, 0], safe[:, 0]), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_score_as_their_own_values_in_float64(dtype: torch.dtype) -> None:
    toxic, safe = states(40, 2, 16, seed=2).to(dtype), states(40, 2, 16, seed=3).to(dtype)
    expected = safety_awareness_score(toxic.double(), safe.double())
    torch.testing.assert_close(safety_awareness_score(toxic, safe), expected, atol=1e-7, rtol=0)


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    toxic, safe = states(23, 2, 8, seed=4), states(23, 2, 8, seed=5)
    whole = safety_awareness_score(toxic, safe)
    monkeypatch.setattr(sas, "BLOCK_ELEMENTS", 40)  # two pairs a block
    torch.testing.assert_close(safety_awareness_score(toxic, safe), whole, atol=1e-12, rtol=0)


def test_range_and_symmetry() -> None:
    direction = states(1, 1, 8, seed=6)
    safe = states(5, 1, 8, seed=7)
    assert safety_awareness_score(safe + direction, safe).item() == pytest.approx(1.0, abs=1e-6)
    # N vectors from the centre of a simplex to its corners are as far apart as N directions can be.
    corners = torch.eye(5)[:, None] - 0.2
    assert safety_awareness_score(corners, torch.zeros(5, 1, 5)).item() == pytest.approx(-1 / 4, abs=1e-6)
    toxic = states(5, 1, 8, seed=8)
    assert safety_awareness_score(toxic, safe).item() == safety_awareness_score(safe, toxic).item()


def test_scores_of_the_first_n_pairs_come_in_one_pass() -> None:
    toxic, safe = states(12, 2, 6, seed=9), states(12, 2, 6, seed=10)
    counts = [7, 2, 12, 7]
    expected = torch.stack([safety_awareness_score(toxic[:n], safe[:n]) for n in counts])
    torch.testing.assert_close(sas_by_pair_count(toxic, safe, counts=counts), expected, atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="SAS over 13 pairs"):
        sas_by_pair_count(toxic, safe, counts=[13])


def test_equal_twins_are_named_by_pair_and_layer() -> None:
    toxic, safe = states(6, 3, 4, seed=11), states(6, 3, 4, seed=12)
    toxic[4, 1] = safe[4, 1]
    with pytest.raises(ValueError, match=r"pair 4: .* equal states at layer 8"):
        safety_awareness_score(toxic, safe, layers=[4, 8, 12])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_named(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sas, "BLOCK_ELEMENTS", 8)  # so that the pair lies in a later block
    toxic, safe = states(6, 2, 4, seed=13), states(6, 2, 4, seed=14)
    toxic[5, 1, 2] = value
    with pytest.raises(ValueError, match="pair 5: the contrast at layer 1 has length"):
        safety_awareness_score(toxic, safe)


@pytest.mark.usefixtures("as_a_user")
def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[6, 2, 4\] and safe states \[5, 2, 4\]"):
        safety_awareness_score(torch.ones(6, 2, 4), torch.zeros(5, 2, 4))
    with pytest.raises(ValueError, match="at least 2"):
        safety_awareness_score(torch.ones(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="3 layer names for states of 2 layers"):
        safety_awareness_score(torch.ones(6, 2, 4), torch.zeros(6, 2, 4), layers=[1, 2, 3])
    with pytest.raises(ValueError, match="one layer"):
        contrast_cosines(torch.ones(6, 2, 4), torch.zeros(6, 2, 4))


def test_heat_map_is_the_matrix_that_sas_averages_and_twice_is_the_published_script() -> None:
    toxic, safe = states(9, 5, seed=15) + 0.4, states(9, 5, seed=16)
    once = contrast_cosines(toxic, safe)
    published = cosine_similarity((safe - toxic).numpy())
    np.testing.assert_allclose(once.numpy(), published, atol=1e-6)
    upper = once[tuple(torch.triu_indices(9, 9, offset=1))].mean().item()
    assert upper == pytest.approx(safety_awareness_score(toxic[:, None], safe[:, None]).item(), abs=1e-6)
    twice = contrast_cosines(toxic, safe, double_cosine=True)
    np.testing.assert_allclose(twice.numpy(), cosine_similarity(published), atol=1e-6)


def test_candidates_are_the_papers() -> None:
    assert candidate_layers(28, rule="multiples_of_4") == (4, 8, 12, 16, 20, 24)
    assert candidate_layers(32, rule="multiples_of_4") == (4, 8, 12, 16, 20, 24, 28)
    assert candidate_layers(4) == (1, 2, 3)
    with pytest.raises(ValueError, match="no candidate layer in a decoder of 4 blocks"):
        candidate_layers(4, rule="multiples_of_4")


@pytest.mark.usefixtures("as_a_user")
def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'all' or 'multiples_of_4'"):
        candidate_layers(8, rule="even")  # type: ignore[arg-type]


def test_select_layer_takes_the_best_and_of_equals_the_shallowest() -> None:
    # Fig. 4: LLaVA-OneVision and Chameleon
    assert select_layer(torch.tensor([0.154, 0.210, 0.301, 0.342, 0.355, 0.302]), range(4, 25, 4)) == 20
    assert (
        select_layer(torch.tensor([0.029, 0.085, 0.055, 0.166, 0.150, 0.172, 0.150]), range(4, 29, 4)) == 24
    )
    assert select_layer(torch.tensor([0.1, 0.3, 0.3]), [9, 7, 5]) == 5
    with pytest.raises(ValueError, match="give one score for each"):
        select_layer(torch.tensor([0.1]), [1, 2])
    with pytest.raises(ValueError, match=r"not a number at layers \[2\]"):
        select_layer(torch.tensor([0.1, float("nan")]), [1, 2])
