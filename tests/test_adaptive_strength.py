"""AdaSteer's readings and lines: the published literals as oracles, and what the fit makes of held-out positions."""

import pytest
import torch
from torch import Tensor

from autosteer_lib.adaptive_strength import (
    ClippedLine,
    along,
    fitted_line,
    position,
    scaled,
    separation,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_p_is_0_at_one_mean_and_100_at_the_other() -> None:
    a, b, h = draw(3, 6)
    assert position(a, a, b).item() == 0.0
    assert position(b, a, b).item() == pytest.approx(100.0, abs=1e-4)
    assert position((a + b) / 2, a, b).item() == pytest.approx(50.0, abs=1e-4)
    u = 563 * (b - a)  # the length of the reading's axis cancels
    assert position(h, a, b).item() == pytest.approx(float(100 * (h - a) @ u / ((b - a) @ u)), rel=1e-4)
    assert position(h, a, a).isnan()


@pytest.mark.parametrize(
    ("line", "published"),
    [
        (ClippedLine(slope=0.02, offset=-60.0, low=-0.22, high=-0.08), lambda p: min(max(0.02 * (p + 60), -0.22), -0.08)),
        (ClippedLine(slope=0.1, offset=140.0, low=-0.2, high=0.0), lambda p: min(max(0.1 * (p - 140), -0.2), 0.0)),
        (ClippedLine(slope=-0.06, offset=50.0, low=-0.6, high=0.4), lambda p: min(max(-0.06 * (p - 50), -0.6), 0.4)),
        (ClippedLine(slope=0.004, offset=35.0, low=-0.02, high=0.06), lambda p: min(max(0.004 * (p - 35), -0.02), 0.06)),
    ],
)  # fmt: skip
def test_a_line_can_be_the_codes_literal(line: ClippedLine, published: object) -> None:
    assert callable(published)
    for p in (-200.0, -70.0, 0.0, 47.0, 52.0, 139.0, 300.0):
        assert float(line(torch.tensor(p))) == pytest.approx(published(p), abs=1e-5)


def test_along_keeps_one_degree_of_freedom() -> None:
    vector, direction = draw(4, 6), draw(4, 6, seed=1)
    direction[3] = 0
    kept = along(vector, direction)
    for layer in range(3):
        r = direction[layer] / direction[layer].norm()
        torch.testing.assert_close(kept[layer], torch.outer(r, r) @ vector[layer])
        assert abs(float(torch.cosine_similarity(kept[layer], r, dim=0))) == pytest.approx(1.0, abs=1e-5)
    assert not kept[3].any()


def test_the_line_is_the_tangent_of_the_logistic_curve() -> None:
    first, second = 20 * draw(200), 100 + 20 * draw(200, seed=1)
    up = fitted_line(first, second, rises=True)
    down = fitted_line(first, second, rises=False)
    p = torch.linspace(-100, 200, 61)
    torch.testing.assert_close(up(p) + down(p), torch.ones_like(p), atol=1e-4, rtol=0)
    middle = float(p[(up(p) - 0.5).abs().argmin()])
    assert middle == pytest.approx(50.0, abs=8.0)
    assert (float(up(first.mean())), float(up(second.mean()))) == (0.0, 1.0)
    curve = torch.sigmoid(4 * up.slope * (p - (up.offset + 0.5 / up.slope)))
    assert (curve - up(p)).abs().max() < 0.12  # a logistic curve leaves its clipped tangent by at most σ(−2)
    half = scaled(down, 0.5)
    torch.testing.assert_close(half(p), 0.5 * down(p))
    assert (scaled(up, 0.0)(p) == 0).all()


def test_classes_of_unlike_size_meet_in_the_middle() -> None:
    first, second = 20 * draw(400), 100 + 20 * draw(20, seed=1)
    line = fitted_line(first, second, rises=True)
    assert line.offset + 0.5 / line.slope == pytest.approx(50.0, abs=12.0)


def test_held_out_prompts_that_lie_the_other_way_round_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"lie the other way round \(means 100.0 and 0.0 of 100\)"):
        fitted_line(torch.tensor([99.0, 101.0]), torch.tensor([-1.0, 1.0]), rises=True)
    with pytest.raises(ValueError, match="there are 2 and 0"):
        fitted_line(torch.tensor([1.0, 2.0]), torch.tensor([]), rises=True)
    with pytest.raises(ValueError, match=r"clipped to \[1.0, 0.0\] has no values"):
        ClippedLine(slope=1.0, offset=0.0, low=1.0, high=0.0)


def test_separation_is_in_standard_deviations() -> None:
    assert separation(torch.tensor([-1.0, 1.0]), torch.tensor([3.0, 5.0])) == pytest.approx(4.0)
    assert separation(torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 1.0])) == pytest.approx(-4.0)
    assert separation(torch.tensor([0.0]), torch.tensor([float("nan")])) == float("-inf")
    assert separation(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])) > 1e5
