"""ModalAlignment: eq. 7–10 by hand, and what the two options change."""

from typing import Any

import pytest
import torch

from autosteer_lib.modal_alignment import ModalAlignment

STREAM = torch.Generator().manual_seed(0)
IMAGES, TEXTS = torch.randn(7, 6, generator=STREAM) + 2, torch.randn(5, 6, generator=STREAM) - 1
STATES = torch.randn(3, 6, generator=STREAM)
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def alignment() -> ModalAlignment:
    return ModalAlignment.of(IMAGES, TEXTS)


def test_the_printed_shift_is_the_printed_formula(alignment: ModalAlignment) -> None:
    mu = IMAGES.mean(0) - TEXTS.mean(0)
    torch.testing.assert_close(alignment.difference, mu, **CLOSE)
    shift = alignment.shift(STATES, direction="as_printed", scale="as_printed")
    for h, moved in zip(STATES, shift, strict=True):
        alpha = torch.dist(h, TEXTS.mean(0))
        torch.testing.assert_close(moved, alpha * mu, **CLOSE)


def test_the_sensible_shift_is_as_long_as_the_way_to_the_texts_and_leads_there(
    alignment: ModalAlignment,
) -> None:
    shift = alignment.shift(STATES, direction="towards_text", scale="unit")
    way = TEXTS.mean(0) - STATES
    torch.testing.assert_close(shift.norm(dim=-1), way.norm(dim=-1), **CLOSE)
    printed = alignment.shift(STATES, direction="as_printed", scale="as_printed")
    assert (torch.cosine_similarity(shift, printed) < -0.999).all()
    # A picture's mean lands on the texts' mean; as printed it is driven away from it.
    at_images = alignment.image_centroid[None]
    landed = at_images + alignment.shift(at_images, direction="towards_text", scale="unit")
    torch.testing.assert_close(landed[0], alignment.text_centroid, **CLOSE)
    away = at_images + alignment.shift(at_images, direction="as_printed", scale="unit")
    assert torch.dist(away[0], alignment.text_centroid) > 1.9 * alignment.difference.norm()


def test_the_printed_scale_grows_with_the_square_of_the_states(alignment: ModalAlignment) -> None:
    doubled = ModalAlignment.of(2 * IMAGES, 2 * TEXTS)
    for scale, power in (("unit", 2), ("as_printed", 4)):
        mine, twice = (
            a.shift(h, direction="towards_text", scale=scale)  # type: ignore[arg-type]
            for a, h in ((alignment, STATES), (doubled, 2 * STATES))
        )
        torch.testing.assert_close(twice, power * mine, **CLOSE)


def test_half_precision_states_are_shifted_in_float32(alignment: ModalAlignment) -> None:
    shift = alignment.shift(STATES.to(torch.bfloat16), direction="towards_text", scale="unit")
    assert shift.dtype == torch.float32


@pytest.mark.usefixtures("as_a_user")
def test_centroids_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 6\] and text attacks \[5, 6\]"):
        ModalAlignment.of(IMAGES[:0], TEXTS)
    with pytest.raises(ValueError, match=r"\[7, 4\]"):
        ModalAlignment.of(IMAGES[:, :4], TEXTS)
    with pytest.raises(ValueError, match="one and the same mean state"):
        ModalAlignment.of(TEXTS, TEXTS)
