"""The preliminary study's fixed strength against equation 2 as printed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.defences import FixedStrength, Mars, Undefended
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.mars_readings import MarsReading, Positions
from autosteer_lib.models import MLLM, DtypeName, load
from autosteer_lib.prompts import Prompt
from tests.mars_on_tiny import LAYER, SETTINGS, Watched, fit, hooks_on, neutral, outputs, text_sets, watch

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def mars(tiny: MLLM) -> Mars:
    return fit(Mars(), tiny)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


@pytest.fixture(scope="module")
def plain(tiny: MLLM, encoded: Encoded) -> Watched:
    return watch(tiny, None, encoded)[0]


@pytest.fixture(scope="module")
def direction(tiny: MLLM) -> Tensor:
    """d̂, read anew."""
    sets = text_sets()
    d = outputs(tiny, sets.unsafe).mean(0) - outputs(tiny, sets.safe).mean(0)
    return d / d.norm()


@pytest.mark.parametrize("alpha", [1.0, 3.0, -0.5])
@pytest.mark.parametrize("positions", ["last_to_all", "each", "last_only"])
def test_the_step_is_alpha_times_the_projection(
    tiny: MLLM,
    mars: Mars,
    encoded: Encoded,
    plain: Watched,
    direction: Tensor,
    alpha: float,
    positions: Literal["last_to_all", "each", "last_only"],
) -> None:
    """Eq. 2: h̄ = h + α⟨h, d̂⟩ d̂."""
    of_reading = mars.retuned(reading=MarsReading(positions=positions))
    steered, responses = watch(tiny, FixedStrength(of_reading, layer=LAYER, alpha=alpha), encoded)
    h = plain.states[0]
    each = alpha * (h @ direction)[..., None] * direction
    step = {"each": each, "last_to_all": each[:, -1:].expand_as(h), "last_only": torch.zeros_like(h)}[
        positions
    ]
    step[:, -1] = each[:, -1]
    for row, length in enumerate(encoded.lengths):
        torch.testing.assert_close(steered.states[0][row, -length:], (h + step)[row, -length:], **CLOSE)
    assert [r.gate_score for r in responses] == pytest.approx((h[:, -1] @ direction).tolist(), abs=1e-5)
    assert [r.triggered for r in responses] == [True] * len(responses)


def test_recentred_the_projection_is_of_what_differs_from_the_centre(
    tiny: MLLM, mars: Mars, encoded: Encoded, plain: Watched, direction: Tensor
) -> None:
    sets, (pictures, clips) = text_sets(), neutral()
    of_texts, of_pictures, of_clips = (
        outputs(tiny, prompts).mean(0) for prompts in ((*sets.unsafe, *sets.safe), pictures, clips)
    )
    mu = torch.stack([of_texts] * 2 + [of_pictures] * 3 + [of_clips] * 2)
    steered, _ = watch(tiny, FixedStrength(mars, layer=LAYER, alpha=2.0, recentre=True), encoded)
    h = plain.states[0][:, -1]
    step = 2.0 * ((h - mu) @ direction)[:, None] * direction
    torch.testing.assert_close(steered.states[0][:, -1], h + step, **CLOSE)
    raw, _ = watch(tiny, FixedStrength(mars, layer=LAYER, alpha=2.0), encoded)
    assert not torch.allclose(raw.states[0][:, -1], steered.states[0][:, -1])


@pytest.mark.parametrize("positions", ["last_to_all", "each", "last_only"])
@pytest.mark.parametrize(("dtype", "overflows"), [("float16", True), ("bfloat16", False)])
def test_a_step_that_overflows_when_it_is_rounded_does_not_pass(
    tiny_folder: Path,
    mars: Mars,
    mixed_prompts: list[Prompt],
    dtype: DtypeName,
    overflows: bool,
    positions: Positions,
) -> None:
    """Its projection and the sum in float32 are finite, and beyond float16's 65504."""
    half = load(tiny_folder, device="cpu", dtype=dtype)
    strong = FixedStrength(mars.retuned(reading=MarsReading(positions=positions)), layer=LAYER, alpha=1e8)
    fails = pytest.raises(
        ValueError, match=r"the moved state at resid_post\(1\) is not finite in rows \[0, 1, "
    )
    with fails if overflows else nullcontext():
        strong.answer(half, encode(half, mixed_prompts), settings=SETTINGS)
    assert not any(hooks_on(half))


def test_strength_zero_is_the_plain_model(tiny: MLLM, mars: Mars, encoded: Encoded) -> None:
    nothing = FixedStrength(mars, layer=LAYER, alpha=0.0)
    assert nothing.steering(tiny, encoded) is None
    plain = [r.text for r in Undefended().answer(tiny, encoded, settings=SETTINGS)]
    assert [r.text for r in nothing.answer(tiny, encoded, settings=SETTINGS)] == plain


def test_the_hook_is_gone_after_the_prefill(tiny: MLLM, mars: Mars, encoded: Encoded) -> None:
    before = hooks_on(tiny)
    steered, _ = watch(tiny, FixedStrength(mars, layer=LAYER, alpha=1.0), encoded)
    assert steered.sites == [set()] * SETTINGS.max_new_tokens
    assert hooks_on(tiny) == before


def test_raw_states_need_no_centre(tiny: MLLM, encoded: Encoded) -> None:
    without_clips = fit(Mars(), tiny, clips=False)
    raw = FixedStrength(without_clips, layer=LAYER, alpha=1.0)
    assert len(raw.answer(tiny, encoded, settings=SETTINGS)) == len(encoded.prompts)
    with pytest.raises(ValueError, match="fitted without neutral clips"):
        FixedStrength(without_clips, layer=LAYER, alpha=1.0, recentre=True).steering(tiny, encoded)


def test_it_takes_no_layer_and_leaves_the_fit_alone(mars: Mars) -> None:
    before = (mars.layer, mars.layer_, mars.recentre, mars.fingerprint)
    steer = FixedStrength(mars, layer=LAYER, alpha=1.0)
    assert (steer.layer, mars.layer_) == (LAYER, 2)
    assert (mars.layer, mars.layer_, mars.recentre, mars.fingerprint) == before


def test_fingerprints_see_layer_strength_and_centre(mars: Mars) -> None:
    defences = [
        FixedStrength(mars, layer=1, alpha=1.0),
        FixedStrength(mars, layer=2, alpha=1.0),
        FixedStrength(mars, layer=1, alpha=2.0),
        FixedStrength(mars, layer=1, alpha=1.0, recentre=True),
    ]
    prints = [defence.fingerprint for defence in (*defences, mars)]
    assert len(set(prints)) == len(prints)
    assert FixedStrength(mars, layer=1, alpha=1.0).fingerprint == prints[0]


def test_what_it_cannot_steer_with_is_refused(
    tiny: MLLM, other_tiny: MLLM, mars: Mars, encoded: Encoded
) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        FixedStrength(Mars(), layer=1, alpha=1.0)
    with pytest.raises(ValueError, match="layer 4 does not exist; tiny has layers 0…3"):
        FixedStrength(mars, layer=4, alpha=1.0)
    for alpha in (1.0, 0.0):
        with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
            FixedStrength(mars, layer=1, alpha=alpha).steering(other_tiny, encoded)
