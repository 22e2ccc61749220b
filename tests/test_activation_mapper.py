"""The map between two models' states: least squares as oracle, and what becomes of a vector."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.activation_mapper import fit_mapper
from autosteer_lib.pairs import split_indices

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def source() -> Tensor:
    return 3.0 * draw(200, 6, seed=0) + 5.0


@pytest.fixture(scope="module")
def linear() -> Tensor:
    return draw(6, 4, seed=1)


def test_the_affine_map_is_least_squares(source: Tensor, linear: Tensor) -> None:
    target = source @ linear - 2.0 + 0.5 * draw(200, 4, seed=2)
    mapper, explained = fit_mapper(source, target, kind="affine", ridge=0.0)
    train, kept_back = split_indices(200, held_out=0.1, seed=0, least=2)
    design = torch.cat((source, torch.ones(200, 1)), dim=1).double()
    solution = torch.linalg.lstsq(design[train], target[train].double()).solution
    torch.testing.assert_close(mapper(source).double(), design @ solution, **CLOSE)
    error = (target - mapper(source))[kept_back].square().sum()
    variance = (target[kept_back] - target[train].mean(0)).square().sum()
    assert explained == pytest.approx(float(1 - error / variance), abs=1e-5)


def test_a_difference_is_mapped_by_the_linear_part_and_as_printed_holds_the_rest(
    source: Tensor, linear: Tensor
) -> None:
    mapper, explained = fit_mapper(source, source @ linear - 2.0, kind="affine", ridge=1e-9)
    assert explained == pytest.approx(1.0, abs=1e-4)
    v = draw(6, seed=3)
    torch.testing.assert_close(mapper.vector(v), v @ linear, **CLOSE)
    torch.testing.assert_close(mapper.vector(v, how="as_printed"), v @ linear - 2.0, atol=1e-3, rtol=1e-3)


def test_the_mlp_learns_what_is_not_affine(source: Tensor, linear: Tensor) -> None:
    target = (source @ linear).abs()
    before = torch.random.get_rng_state()
    mapper, explained = fit_mapper(source, target, width=64, epochs=150, lr=3e-3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert explained > fit_mapper(source, target, kind="affine").explained + 0.1
    assert (mapper.kind, mapper.w1.shape) == ("mlp", (64, 6))
    # Its formula, written out.
    inner = (source - mapper.source_mean) / mapper.source_scale
    hidden = (inner @ mapper.w1.T + mapper.b1).relu()
    expected = (hidden @ mapper.w2.T + mapper.b2) * mapper.target_scale + mapper.target_mean
    torch.testing.assert_close(mapper(source), expected, **CLOSE)
    v = draw(6, seed=4)
    moved = mapper(mapper.source_mean + v) - mapper(mapper.source_mean)
    torch.testing.assert_close(mapper.vector(v), moved, **CLOSE)
    assert not any(tensor.requires_grad for tensor in mapper)


def test_the_kept_epoch_is_of_the_least_held_out_error(source: Tensor) -> None:
    """On noise every further epoch is worse; the first ones are kept."""
    noise = draw(200, 4, seed=5)
    few, many = (fit_mapper(source, noise, width=256, epochs=e, lr=1e-2).explained for e in (2, 120))
    assert many >= few - 1e-6


def test_the_same_seed_gives_the_same_map(source: Tensor) -> None:
    target = draw(200, 4, seed=6)
    maps = [fit_mapper(source, target, epochs=3, seed=s).mapper for s in (1, 1, 2)]
    assert torch.equal(maps[0](source), maps[1](source))
    assert not torch.equal(maps[0](source), maps[2](source))


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_mapped(source: Tensor) -> None:
    with pytest.raises(ValueError, match="200 source states and 199 target states"):
        fit_mapper(source, source[1:])
    with pytest.raises(ValueError, match="at least 4"):
        fit_mapper(source[:3], source[:3])
    with pytest.raises(ValueError, match="all target states are one and the same"):
        fit_mapper(source, torch.ones(200, 4))
    with pytest.raises(ValueError, match="kind='cubic'"):
        fit_mapper(source, source, kind="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="how='halfway'"):
        fit_mapper(source, source, kind="affine").mapper.vector(source[0], how="halfway")  # type: ignore[arg-type]
