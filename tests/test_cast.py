"""CAST on a tiny model: condition and behaviour against formulas written out, row by row and step by step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences.cast import Cast
from autosteer_lib.encoding import encode
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_pre
from tests.defence_checks import (
    check_against_oracle,
    check_everything,
    check_fingerprints,
    check_only_triggered_rows_change,
    check_rows_alone_and_together,
    check_steers_half_in_float32,
    see,
    weights_of,
)
from tests.mars_on_tiny import SETTINGS, hooks_on, text_sets
from tests.test_pooled_states import hidden_of

TEXTS: dict[str, Any] = {"refusal_text": "sorry cannot help", "compliance_text": "sure please make the sun"}


def fit(mllm: MLLM, **changes: Any) -> Cast:
    return Cast(**{"strength": 3.0, **changes}).fit(mllm, text_sets(), **TEXTS)


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> Cast:
    return fit(tiny, condition_layers=[1, 2], behaviour_layers=[2, 3])


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, fitted: Cast, mixed_prompts: list[Prompt]) -> Cast:
    """A threshold that some of the prompts reach."""
    return halved(tiny, fitted, mixed_prompts)


def halved(mllm: MLLM, cast: Cast, prompts: list[Prompt]) -> Cast:
    always = cast.retuned(point=(cast.point_.layer, -2.0, "above", 0.0))
    scores = sorted(r.gate_score or 0.0 for r in always.respond(mllm, prompts, settings=SETTINGS))
    return cast.retuned(point=(cast.point_.layer, (scores[3] + scores[4]) / 2, "above", 0.0))


def by_hand(cast: Cast, prompt: Prompt, mllm: MLLM) -> float:
    """sim of one prompt, alone and without a batch."""
    assert cast.point_.layer == 2 or cast.reads
    hidden = states_at(mllm, prompt, cast.point_.layer)
    h = hidden.mean(0) if cast.reads == "mean" else hidden[-1]
    c = cast.condition_[cast.point_.layer]
    projected = torch.tanh(torch.outer(c, c) / torch.dot(c, c) @ h)
    return float(torch.dot(h, projected) / (h.norm() * projected.norm()))


def states_at(mllm: MLLM, prompt: Prompt, layer: int) -> Tensor:
    with torch.no_grad():
        output = mllm.model(**encode(mllm, [prompt]).inputs, output_hidden_states=True, use_cache=False)
    return output.hidden_states[layer][0]


def test_open_rows_get_the_vectors_at_every_token_and_the_others_nothing(
    tiny: MLLM, mixed: Cast, mixed_prompts: list[Prompt]
) -> None:
    scores = [by_hand(mixed, prompt, tiny) for prompt in mixed_prompts]
    opened = torch.tensor([score > mixed.point_.threshold for score in scores])

    def oracle(width: int) -> Any:
        def add(layer: int) -> Any:
            vector = 3.0 * mixed.behaviour_[layer]
            return lambda hidden: torch.where(opened[:, None, None], hidden + vector, hidden)

        return {resid_pre(layer): add(layer) for layer in (2, 3)}

    encoded = encode(tiny, mixed_prompts)
    responses = check_against_oracle(tiny, mixed, encoded, oracle)
    assert [r.triggered for r in responses] == opened.tolist()
    assert [r.gate_score for r in responses] == pytest.approx(scores, abs=1e-5)
    assert {r.model_calls for r in responses} == {1}
    check_only_triggered_rows_change(tiny, mixed, encoded)


def test_the_battery(
    tiny: MLLM, other_tiny: MLLM, mixed: Cast, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    check_everything(tiny, other_tiny, mixed, mixed_prompts, tmp_path, unfitted=Cast())


@pytest.mark.parametrize(
    "changes",
    [{"reads": "last"}, {"condition_layers": [1]}, {"centring": "global"}, {"behaviour_layers": [3]}],
    ids=str,
)
def test_each_reading_is_read(
    tiny: MLLM, fitted: Cast, mixed_prompts: list[Prompt], changes: dict[str, Any]
) -> None:
    cast = fit(tiny, **{"condition_layers": [1, 2], "behaviour_layers": [2, 3], **changes})
    _, responses = see(tiny, cast, encode(tiny, mixed_prompts))
    assert [r.gate_score for r in responses] == pytest.approx(
        [by_hand(cast, prompt, tiny) for prompt in mixed_prompts], abs=1e-5
    )
    assert cast.fingerprint != fitted.fingerprint


def test_the_directions_are_of_the_pairs(tiny: MLLM, fitted: Cast) -> None:
    """Pairwise: the main axis of the differences, uncentred; its side is that of harm and of refusal."""
    sets = text_sets()
    of = [torch.stack([hidden_of(tiny, p).mean(0) for p in side]) for side in (sets.unsafe, sets.safe)]
    gap = of[0] - of[1]
    axis = torch.linalg.svd(gap, full_matrices=False).Vh[0]
    assert abs(float(axis @ fitted.condition_[2])) == pytest.approx(1.0, abs=1e-4)
    assert ((gap @ fitted.condition_[2]) > 0).float().mean() >= 0.5
    words = [
        torch.stack([hidden_of(tiny, p, answer=text)[-tokens:].mean(0) for p in sets.safe])
        for text, tokens in ((TEXTS["refusal_text"], 4), (TEXTS["compliance_text"], 6))
    ]
    axis = torch.linalg.svd(words[0] - words[1], full_matrices=False).Vh[0]
    assert abs(float(axis @ fitted.behaviour_[2])) == pytest.approx(1.0, abs=1e-4)


def test_a_batch_without_an_open_row_decodes_without_hooks(
    tiny: MLLM, fitted: Cast, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    shut = fitted.retuned(point=(fitted.point_.layer, 2.0, "above", 0.0))
    seen, responses = see(tiny, shut, encode(tiny, mixed_prompts))
    assert seen.sites == [set()] * SETTINGS.max_new_tokens
    assert {r.triggered for r in responses} == {False}
    opened, _ = see(tiny, shut.retuned(point=(1, 2.0, "below", 0.0)), encode(tiny, mixed_prompts))
    assert opened.sites == [{resid_pre(2), resid_pre(3)}] * SETTINGS.max_new_tokens
    assert hooks_on(tiny) == before


def test_the_condition_may_be_read_where_the_first_vector_is_added(
    tiny: MLLM, mixed_prompts: list[Prompt]
) -> None:
    cast = halved(tiny, fit(tiny, condition_layers=[2], behaviour_layers=[2]), mixed_prompts)
    encoded = encode(tiny, mixed_prompts)
    check_only_triggered_rows_change(tiny, cast, encoded)
    scores = [by_hand(cast, prompt, tiny) for prompt in mixed_prompts]
    _, responses = see(tiny, cast, encoded)
    assert [r.gate_score for r in responses] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_do_not_pass_as_safe(
    tiny: MLLM, fitted: Cast, mixed_prompts: list[Prompt], value: float
) -> None:
    before = hooks_on(tiny)
    broken = fitted.retuned()
    broken.condition_ = torch.full_like(fitted.condition_, value)
    with pytest.raises(
        ValueError, match=r"the gate's score at resid_pre\(\d\) is not finite in rows \[0, 1\]"
    ):
        broken.answer(tiny, encode(tiny, mixed_prompts[:2]), settings=SETTINGS)
    assert hooks_on(tiny) == before


def test_fit_chooses_on_the_validation_texts_and_leaves_the_model(tiny: MLLM, fitted: Cast) -> None:
    before = weights_of(tiny)
    again = fit(tiny, condition_layers=[1, 2], behaviour_layers=[2, 3])
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    assert again.fingerprint == fitted.fingerprint
    sets = text_sets()
    caught = [
        sum(bool(r.triggered) for r in fitted.respond(tiny, side, settings=SETTINGS))
        for side in (sets.validation_unsafe, sets.validation_safe)
    ]
    f1 = 2 * caught[0] / (caught[0] + caught[1] + len(sets.validation_unsafe))
    assert fitted.point_.f1 == pytest.approx(f1, abs=0.1)
    assert fit(tiny).behaviour_layers_ == (2, 3)  # the paper's 15…23 of 32


@pytest.mark.parametrize(
    ("depth", "condition", "behaviour"), [(32, (1, 9), (15, 23)), (28, (1, 8), (13, 20)), (8, (1, 2), (4, 6))]
)
def test_layers_are_the_tutorials_share_of_the_depth(
    tiny: MLLM, depth: int, condition: tuple[int, int], behaviour: tuple[int, int]
) -> None:
    facts = replace(FittedOn.of(tiny), layers=depth)
    searched, steered = Cast()._layers(facts)
    assert ((searched[0], searched[-1]), (steered[0], steered[-1])) == (condition, behaviour)


def test_fingerprints_see_what_an_answer_depends_on(fitted: Cast) -> None:
    layer, threshold, side, _ = fitted.point_
    check_fingerprints(
        [
            fitted,
            fitted.retuned(strength=1.0),
            fitted.retuned(point=(layer, threshold + 0.1, side, 0.0)),
            fitted.retuned(point=(layer, threshold, "below" if side == "above" else "above", 0.0)),
        ]
    )
    assert fitted.retuned(point=(layer, threshold, side, 0.0)).fingerprint == fitted.fingerprint
    with pytest.raises(ValueError, match="reads='last' needs a fit of its own"):
        fitted.retuned(reads="last")


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_fitted_is_refused_before_the_model_runs(
    tiny: MLLM, fitted: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    with pytest.raises(ValueError, match="layer 7 does not exist; tiny has layers 0…3"):
        fit(tiny, condition_layers=[7])
    with pytest.raises(ValueError, match="the condition must be known before the first behaviour layer"):
        fit(tiny, condition_layers=[3], behaviour_layers=[2])
    with pytest.raises(ValueError, match="reads='all'"):
        Cast(reads="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not above the first behaviour layer 2"):
        fitted.retuned(point=(3, 0.0, "above", 0.0))


def test_half_precision_models_are_steered_in_float32(tiny_folder: Path, mixed_prompts: list[Prompt]) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    defence = halved(half, fit(half, condition_layers=[2], behaviour_layers=[2, 3]), mixed_prompts)
    check_steers_half_in_float32(half, defence, mixed_prompts)


@pytest.mark.battery
def test_every_family_is_steered_in_its_open_rows(family: MLLM, family_prompts: list[Prompt]) -> None:
    cast = halved(family, fit(family, strength=8.0), family_prompts)
    check_rows_alone_and_together(family, cast, family_prompts)
