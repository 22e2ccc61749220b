"""Activation transfer between two tiny models: a direction of one, mapped, added in the other's open rows."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.activation_mapper import fit_mapper
from autosteer_lib.activations import collect
from autosteer_lib.condition_vectors import condition_similarity
from autosteer_lib.defences.activation_transfer import ActivationTransfer
from autosteer_lib.encoding import encode
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from tests.defence_checks import (
    CLOSE,
    check_against_oracle,
    check_everything,
    check_fingerprints,
    check_only_triggered_rows_change,
    check_rows_alone_and_together,
    check_steers_half_in_float32,
    see,
    weights_of,
)
from tests.mars_on_tiny import SETTINGS, ByLabel, hooks_on, text_sets, texts

SMALL: dict[str, Any] = {"source_layer": 2, "target_layer": 1, "alpha": 2.0, "mapper": "affine"}


@cache
def mapping_texts() -> tuple[Prompt, ...]:
    """Unlabelled as far as the map is concerned."""
    sets = text_sets()
    return (*sets.unsafe, *sets.safe, *texts("what is {} ?", "sun", harmful=False))


def fit(source: MLLM, target: MLLM, **changes: Any) -> ActivationTransfer:
    return ActivationTransfer(**{**SMALL, **changes}).fit(
        source, target, text_sets(), mapping_texts=mapping_texts(), settings=SETTINGS, judge=ByLabel()
    )


def halved(mllm: MLLM, defence: ActivationTransfer, prompts: list[Prompt]) -> ActivationTransfer:
    """A centre around which the prompts lie on both sides."""
    other = defence.retuned()
    states = collect(mllm, prompts, sites=[resid_post(other.target_layer)])[:, 0]
    unit = other.vector_ / other.vector_.norm()
    ordered = (states @ unit).sort().values
    other.centre_ = (ordered[3] + ordered[4]) / 2 * unit
    return other._adopt(other._tensors(), other._values(), fitted_on=other.fitted_on_)


@pytest.fixture(scope="module")
def fitted(tiny: MLLM, other_tiny: MLLM) -> ActivationTransfer:
    """From the other model to the one at hand."""
    return fit(other_tiny, tiny)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, fitted: ActivationTransfer, mixed_prompts: list[Prompt]) -> ActivationTransfer:
    return halved(tiny, fitted, mixed_prompts)


def states(mllm: MLLM, prompts: Any, layer: int) -> Tensor:
    return collect(mllm, prompts, sites=[resid_post(layer)])[:, 0]


def test_fit_is_its_parts(tiny: MLLM, other_tiny: MLLM, fitted: ActivationTransfer) -> None:
    sets = text_sets()
    v = states(other_tiny, sets.unsafe, 2).mean(0) - states(other_tiny, sets.safe, 2).mean(0)
    torch.testing.assert_close(fitted.source_vector_, v, **CLOSE)
    sides = states(other_tiny, mapping_texts(), 2), states(tiny, mapping_texts(), 1)
    mapper, explained = fit_mapper(*sides, kind="affine")
    assert fitted.explained_ == pytest.approx(explained, abs=1e-5)
    expected = mapper(mapper.source_mean + v) - mapper(mapper.source_mean)
    torch.testing.assert_close(fitted.vector_, expected, **CLOSE)
    torch.testing.assert_close(fitted.centre_, sides[1].mean(0), **CLOSE)
    assert fitted.source_ == FittedOn.of(other_tiny)
    printed = fit(other_tiny, tiny, vector="as_printed")
    torch.testing.assert_close(printed.vector_, mapper(v), **CLOSE)


@pytest.mark.parametrize("gate", ["projection", "condition", "none"])
def test_the_mapped_vector_is_added_at_every_token_of_the_open_rows(
    tiny: MLLM, other_tiny: MLLM, mixed: ActivationTransfer, mixed_prompts: list[Prompt], gate: str
) -> None:
    defence = mixed if gate == "projection" else fit(other_tiny, tiny, gate=gate)
    h, v = states(tiny, mixed_prompts, 1), defence.vector_
    if gate == "projection":
        scores = (h - defence.centre_) @ (v / v.norm())
        opened = scores > 0
    elif gate == "condition":
        assert defence.condition_ is not None
        scores = condition_similarity(h, v)
        _, threshold, side, _ = defence.condition_
        opened = scores > threshold if side == "above" else scores < threshold
    else:
        opened = torch.ones(7, dtype=torch.bool)

    def add(hidden: Tensor) -> Tensor:
        return torch.where(opened[:, None, None], hidden + 2.0 * v, hidden)

    encoded = encode(tiny, mixed_prompts)
    responses = check_against_oracle(tiny, defence, encoded, lambda width: {resid_post(1): add})
    if gate == "none":
        assert {(r.gate_score, r.triggered) for r in responses} == {(None, None)}
        return
    assert [r.triggered for r in responses] == opened.tolist()
    assert [r.gate_score for r in responses] == pytest.approx(scores.tolist(), abs=1e-4)
    assert {r.model_calls for r in responses} == {1}  # none of the source


def test_the_condition_is_chosen_on_the_targets_validation_texts(tiny: MLLM, other_tiny: MLLM) -> None:
    defence = fit(other_tiny, tiny, gate="condition")
    sets = text_sets()
    caught = [
        sum(bool(r.triggered) for r in defence.respond(tiny, side, settings=SETTINGS))
        for side in (sets.validation_unsafe, sets.validation_safe)
    ]
    assert defence.condition_ is not None
    f1 = 2 * caught[0] / (caught[0] + caught[1] + len(sets.validation_unsafe))
    assert defence.condition_.f1 == pytest.approx(f1, abs=0.1)


def test_the_battery(
    tiny: MLLM, other_tiny: MLLM, mixed: ActivationTransfer, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    unfitted = ActivationTransfer(source_layer=1, target_layer=1)
    check_everything(tiny, other_tiny, mixed, mixed_prompts, tmp_path, unfitted=unfitted)
    check_only_triggered_rows_change(tiny, mixed, encode(tiny, mixed_prompts))


def test_a_map_by_an_mlp_is_kept_whole(tiny: MLLM, other_tiny: MLLM, tmp_path: Path) -> None:
    learnt = fit(other_tiny, tiny, mapper="mlp", width=16, epochs=5)
    restored = ActivationTransfer.load(learnt.save(tmp_path), tiny)
    assert all(torch.equal(a, b) for a, b in zip(restored.mapper_, learnt.mapper_, strict=True))
    assert (restored.mapper_.kind, restored.source_) == ("mlp", learnt.source_)


def test_a_batch_without_an_open_row_decodes_without_hooks(
    tiny: MLLM, mixed: ActivationTransfer, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    shut = mixed.retuned()
    shut.centre_ = mixed.centre_ + 1e4 * mixed.vector_
    seen, responses = see(tiny, shut, encode(tiny, mixed_prompts))
    assert seen.sites == [set()] * SETTINGS.max_new_tokens
    assert {r.triggered for r in responses} == {False}
    opened, _ = see(tiny, mixed, encode(tiny, mixed_prompts))
    assert opened.sites == [{resid_post(1)}] * SETTINGS.max_new_tokens
    assert hooks_on(tiny) == before
    assert mixed.retuned(gate="none", alpha=0.0).steering(tiny, encode(tiny, mixed_prompts)) is None


def test_both_models_are_left_as_they_were(tiny: MLLM, other_tiny: MLLM, fitted: ActivationTransfer) -> None:
    before = [weights_of(mllm) for mllm in (tiny, other_tiny)]
    assert fit(other_tiny, tiny).fingerprint == fitted.fingerprint
    for mllm, weights in zip((tiny, other_tiny), before, strict=True):
        assert all(torch.equal(weights[name], tensor) for name, tensor in mllm.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_fingerprints_see_what_an_answer_depends_on(
    tiny: MLLM, other_tiny: MLLM, fitted: ActivationTransfer
) -> None:
    check_fingerprints([fitted, fitted.retuned(alpha=1.0), fitted.retuned(gate="none"), fit(tiny, tiny)])
    with pytest.raises(ValueError, match="target_layer=2 needs a fit of its own"):
        fitted.retuned(target_layer=2)
    with pytest.raises(ValueError, match="found by a fit with that gate"):
        fitted.retuned(gate="condition")


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_fitted_is_refused_before_a_model_runs(
    tiny: MLLM, other_tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    with pytest.raises(ValueError, match="source_layer 4 does not exist; other has layers 0…3"):
        fit(other_tiny, tiny, source_layer=4)
    with pytest.raises(ValueError, match="target_layer 9 does not exist; tiny has layers 0…3"):
        fit(other_tiny, tiny, target_layer=9)
    with pytest.raises(ValueError, match="3 different mapping texts were given"):
        ActivationTransfer(**SMALL).fit(
            other_tiny, tiny, text_sets(), mapping_texts=mapping_texts()[:3], settings=SETTINGS
        )
    with pytest.raises(ValueError, match="gate='always'"):
        ActivationTransfer(source_layer=1, target_layer=1, gate="always")  # type: ignore[arg-type]


def test_half_precision_models_are_steered_in_float32(tiny_folder: Path, mixed_prompts: list[Prompt]) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    defence = halved(half, fit(half, half), mixed_prompts)
    check_steers_half_in_float32(half, defence, mixed_prompts)


@pytest.mark.battery
def test_every_family_is_steered_by_another_familys_direction(
    tiny: MLLM, family: MLLM, family_prompts: list[Prompt]
) -> None:
    """The source has another tokeniser and other words around them."""
    defence = halved(family, fit(tiny, family, alpha=6.0), family_prompts)
    check_rows_alone_and_together(family, defence, family_prompts)
