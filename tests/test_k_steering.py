"""K-Steering as a defence on a tiny model: gradient steps in every pass, in the rows that its gate opens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.defences.k_steering import KSteering, behaviour_labels
from autosteer_lib.encoding import encode
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from autosteer_lib.steering_classifier import ClassifierWeights, label_logits
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
from tests.mars_on_tiny import LAYER, SETTINGS, ByLabel, hooks_on, text_sets

SMALL: dict[str, Any] = {"width": 16, "epochs": 20, "lr": 1e-2, "alpha": 0.4, "layer": LAYER}


def labels() -> dict[str, Sequence[Prompt]]:
    sets = text_sets()
    return {"refused": sets.unsafe, "accepted": sets.safe, "harmful": sets.unsafe}


def fit(mllm: MLLM, **changes: Any) -> KSteering:
    return KSteering(**{**SMALL, **changes}).fit(mllm, labels())


def halved(mllm: MLLM, defence: KSteering, prompts: list[Prompt]) -> KSteering:
    scores = [r.gate_score or 0.0 for r in defence.respond(mllm, prompts, settings=SETTINGS)]
    ordered = sorted(scores)
    return defence.retuned(threshold=(ordered[3] + ordered[4]) / 2)


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> KSteering:
    return fit(tiny)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, fitted: KSteering, mixed_prompts: list[Prompt]) -> KSteering:
    return halved(tiny, fitted, mixed_prompts)


def gradient_by_hand(w: ClassifierWeights, h: Tensor) -> Tensor:
    """∇(g_accepted − g_refused) of each state, by the chain rule."""
    r1 = h @ w.w1.T + w.b1
    r2 = r1.relu() @ w.w2.T + w.b2
    return (((w.w3[1] - w.w3[0]) * (r2 > 0)) @ w.w2 * (r1 > 0)) @ w.w1


@pytest.mark.parametrize("changes", [{}, {"steps": 2, "decay": 0.5}, {"algorithm": "reflection"}], ids=str)
def test_open_rows_step_down_the_gradient_in_every_pass(
    tiny: MLLM, mixed: KSteering, mixed_prompts: list[Prompt], changes: dict[str, Any]
) -> None:
    defence, w = mixed.retuned(**changes), mixed.weights_
    states = collect(tiny, mixed_prompts, sites=[resid_post(LAYER)])[:, 0]
    scores = torch.sigmoid(label_logits(w, states)[:, 2])
    opened = scores >= mixed.threshold

    def step(hidden: Tensor) -> Tensor:
        moved = hidden
        for count in range(defence.steps):
            gradient = gradient_by_hand(w, moved)
            if defence.algorithm == "descent":
                moved = moved - 0.4 * defence.decay**count * gradient
            else:
                n = torch.nn.functional.normalize(gradient, dim=-1)
                moved = moved - 2 * (moved * n).sum(-1, keepdim=True) * n
        return torch.where(opened[:, None, None], moved, hidden)

    encoded = encode(tiny, mixed_prompts)
    responses = check_against_oracle(tiny, defence, encoded, lambda width: {resid_post(LAYER): step})
    assert [r.triggered for r in responses] == opened.tolist()
    assert [r.gate_score for r in responses] == pytest.approx(scores.tolist(), abs=1e-5)
    check_only_triggered_rows_change(tiny, defence, encoded)


def test_the_battery(
    tiny: MLLM, other_tiny: MLLM, mixed: KSteering, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    check_everything(tiny, other_tiny, mixed, mixed_prompts, tmp_path, unfitted=KSteering())


def test_without_a_gate_every_row_is_steered(
    tiny: MLLM, fitted: KSteering, mixed_prompts: list[Prompt]
) -> None:
    always = fitted.retuned(gate=None)
    seen, responses = see(tiny, always, encode(tiny, mixed_prompts))
    plain, _ = see(tiny, None, encode(tiny, mixed_prompts))
    assert (seen.logits[0] != plain.logits[0]).any(dim=-1).all()
    assert {(r.gate_score, r.triggered) for r in responses} == {(None, None)}


def test_a_batch_without_an_open_row_decodes_without_hooks(
    tiny: MLLM, fitted: KSteering, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    encoded = encode(tiny, mixed_prompts)
    shut, responses = see(tiny, fitted.retuned(threshold=1.0), encoded)
    assert shut.sites == [set()] * SETTINGS.max_new_tokens
    assert {r.triggered for r in responses} == {False}
    opened, _ = see(tiny, fitted.retuned(threshold=0.0), encoded)
    assert opened.sites == [{resid_post(LAYER)}] * SETTINGS.max_new_tokens
    assert hooks_on(tiny) == before


def test_a_score_that_is_not_a_number_does_not_pass_as_safe(
    tiny: MLLM, fitted: KSteering, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    broken = fitted.retuned()
    broken.weights_ = broken.weights_._replace(b3=broken.weights_.b3 * float("nan"))
    with pytest.raises(ValueError, match=r"not a number in rows \[0, 1\]"):
        broken.answer(tiny, encode(tiny, mixed_prompts[:2]), settings=SETTINGS)
    assert hooks_on(tiny) == before


def test_without_a_layer_the_one_of_the_best_labels_is_taken(tiny: MLLM) -> None:
    before = weights_of(tiny)
    chosen = fit(tiny, layer=None)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    assert len(chosen.accuracy_) == tiny.layers
    assert chosen.layer_ == chosen.accuracy_.index(max(chosen.accuracy_))
    given = fit(tiny, layer=chosen.layer_)
    assert all(torch.equal(a, b) for a, b in zip(chosen.weights_, given.weights_, strict=True))
    assert given.accuracy_ == ()


def test_labels_are_what_the_model_does(tiny: MLLM) -> None:
    sets = text_sets()
    answered = ByLabel(otherwise=[p.id for p in (*sets.unsafe[:2], *sets.safe[:1])])
    found = behaviour_labels(tiny, sets, settings=SETTINGS, judge=answered)
    assert found == {
        "refused": list(sets.unsafe[2:]), "accepted": list(sets.safe[1:]), "harmful": list(sets.unsafe),
    }  # fmt: skip


def test_fingerprints_see_what_an_answer_depends_on(fitted: KSteering) -> None:
    every: list[dict[str, Any]] = [
        {}, {"alpha": 1.0}, {"steps": 2}, {"decay": 0.9}, {"threshold": 0.4}, {"gate": None},
        {"algorithm": "reflection"}, {"target": ("harmful",)}, {"avoid": ()},
    ]  # fmt: skip
    check_fingerprints([fitted.retuned(**changes) for changes in every])
    with pytest.raises(ValueError, match="width=8 needs a fit of its own"):
        fitted.retuned(width=8)
    with pytest.raises(ValueError, match=r"labels \['cautious'\] have no prompts"):
        fitted.retuned(target=("cautious",))


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_fitted_is_refused_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    with pytest.raises(ValueError, match="layer 4 does not exist; tiny has layers 0…3"):
        fit(tiny, layer=4)
    with pytest.raises(ValueError, match=r"labels \['accepted', 'harmful'\] have no prompts"):
        KSteering().fit(tiny, {"refused": text_sets().unsafe, "accepted": ()})
    for wrong, message in (
        ({"target": (), "avoid": ()}, "nowhere to step"),
        ({"avoid": ("refused",)}, r"\['refused'\] are to be reached and avoided at once"),
        ({"algorithm": "ascent"}, "algorithm='ascent'"),
        ({"threshold": 1.5}, "threshold = 1.5 is outside"),
        ({"steps": 0}, "steps = 0"),
        ({"lr": 0.0}, "lr = 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            KSteering(**wrong)


def test_half_precision_models_are_steered_in_float32(tiny_folder: Path, mixed_prompts: list[Prompt]) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    defence = halved(half, fit(half), mixed_prompts)
    check_steers_half_in_float32(half, defence, mixed_prompts)


@pytest.mark.battery
def test_every_family_is_steered_in_its_open_rows(family: MLLM, family_prompts: list[Prompt]) -> None:
    defence = halved(family, fit(family, alpha=3.0), family_prompts)
    check_rows_alone_and_together(family, defence, family_prompts)
