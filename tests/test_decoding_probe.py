"""DecodingProbe against the textbook's and scikit-learn's own: components, regression, score."""

import math

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from autosteer_lib.decoding_probe import DecodingProbe, check_sides


def states(count: int, *, towards: float, seed: int, dim: int = 12) -> Tensor:
    """Correlated, and of unlike spread in each direction."""
    stream = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, dim, generator=stream) * torch.linspace(3, 0.2, dim)
    return 5.0 + mixed + towards * torch.linspace(1, -1, dim)


HARMFUL, HARMLESS = states(40, towards=0.8, seed=1), states(30, towards=-0.8, seed=2)


@pytest.fixture
def probe() -> DecodingProbe:
    return DecodingProbe().fit(HARMFUL, HARMLESS)


def test_components_are_those_of_a_principal_component_analysis(probe: DecodingProbe) -> None:
    together = torch.cat((HARMFUL, HARMLESS))
    pca = PCA(4, svd_solver="full").fit(together.double().numpy())
    expected = torch.from_numpy(pca.components_).float()
    signs = (probe.components_ * expected).sum(1, keepdim=True).sign()
    torch.testing.assert_close(probe.components_ * signs, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(probe.mean_, together.mean(0), atol=1e-5, rtol=0)
    explained = torch.from_numpy(pca.explained_variance_ratio_).float()
    torch.testing.assert_close(probe.explained_, explained, atol=1e-6, rtol=0)
    assert (probe.components_.gather(1, probe.components_.abs().argmax(1, keepdim=True)) > 0).all()


def test_the_score_is_the_papers_formula_and_its_sigmoid_a_probability(probe: DecodingProbe) -> None:
    h = HARMFUL[3]
    v = probe.components_ @ (h - probe.mean_)
    assert probe.score(h).item() == pytest.approx(float(probe.weight_ @ v + probe.bias_), abs=1e-5)
    found = probe.project(torch.cat((HARMFUL, HARMLESS)))
    labels = [1] * 40 + [0] * 30
    oracle = LogisticRegression(tol=1e-10, max_iter=10_000).fit(found.numpy(), labels)
    probabilities = torch.from_numpy(oracle.predict_proba(found.numpy())[:, 1]).float()
    both = probe.score(torch.cat((HARMFUL, HARMLESS))).sigmoid()
    torch.testing.assert_close(both, probabilities, atol=1e-4, rtol=0)
    right = (both > 0.5) == torch.tensor(labels, dtype=torch.bool)
    assert right.float().mean() > 0.7  # of classes that overlap
    assert probe.losses_ == ()


def test_any_number_of_rows_is_scored_at_once(probe: DecodingProbe) -> None:
    block = HARMFUL[:30].reshape(5, 6, 12)
    scores = probe.score(block)
    assert scores.shape == (5, 6)
    torch.testing.assert_close(scores.flatten(), probe.score(HARMFUL[:30]), atol=1e-5, rtol=1e-5)
    half = probe.score(block.to(torch.bfloat16))
    assert half.dtype == torch.float32
    moved = probe.to(torch.device("cpu"))
    assert torch.equal(moved.score(block), scores)
    assert moved.hyperparameters == probe.hyperparameters


def test_the_order_of_prompts_is_of_no_account(probe: DecodingProbe) -> None:
    turned = DecodingProbe().fit(HARMFUL.flip(0), HARMLESS.flip(0))
    torch.testing.assert_close(turned.score(HARMFUL), probe.score(HARMFUL), atol=1e-4, rtol=1e-4)


def test_the_earlier_codes_recipe_stops_when_nothing_is_gained() -> None:
    probe = DecodingProbe(solver="rds", seed=3).fit(HARMFUL, HARMLESS)
    losses = probe.losses_
    assert len(losses) > 10
    assert losses[-1] < losses[0]
    lowest = math.inf
    in_vain: list[int] = []
    for loss in losses:
        in_vain.append(0 if loss < lowest - 1e-4 else in_vain[-1] + 1)
        lowest = loss if in_vain[-1] == 0 else lowest
    assert in_vain[-1] == 3
    assert max(in_vain[:-1]) < 3
    again = DecodingProbe(solver="rds", seed=3).fit(HARMFUL, HARMLESS)
    assert torch.equal(again.weight_, probe.weight_)
    other = DecodingProbe(solver="rds", seed=4).fit(HARMFUL, HARMLESS)
    assert not torch.equal(other.weight_, probe.weight_)
    assert not torch.allclose(
        probe.weight_, DecodingProbe().fit(HARMFUL, HARMLESS).weight_, atol=1e-3, rtol=0
    )


def test_the_recipe_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    DecodingProbe(solver="rds").fit(HARMFUL, HARMLESS)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("harmful", "harmless", "message"),
    [
        (HARMFUL[:0], HARMLESS, "0 harmful and 30 harmless prompts: a probe .* needs both"),
        (HARMFUL, HARMLESS[:0], "40 harmful and 0 harmless prompts"),
        (HARMFUL[:2], HARMLESS[:2], "span at most 3 directions, and 4 principal components"),
        (HARMFUL, HARMLESS[:, :9], r"\[40, 12\] and harmless ones \[30, 9\]"),
        (HARMFUL[:, :3], HARMLESS[:, :3], "dim of at least 4"),
        (HARMFUL / 0.0, HARMLESS, "not finite"),
        (torch.ones(5, 12), torch.ones(5, 12), "all 10 states are the same"),
    ],
)
def test_what_no_probe_can_be_fitted_on_is_refused(harmful: Tensor, harmless: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingProbe().fit(harmful, harmless)


@pytest.mark.usefixtures("as_a_user")
def test_hyper_parameters_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="components = 0"):
        DecodingProbe(components=0)
    with pytest.raises(ValueError, match=r"solver = 'adam' is not known; allowed: 'converged', 'rds'"):
        DecodingProbe(solver="adam")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give more prompts, or fewer components"):
        check_sides(3, 3, components=6)
    check_sides(3, 3, components=5)


def test_an_unfitted_probe_says_so() -> None:
    with pytest.raises(NotFittedError, match=r"fit\(harmful, harmless\)"):
        DecodingProbe().score(HARMFUL)
    with pytest.raises(NotFittedError):
        _ = DecodingProbe().tensors
