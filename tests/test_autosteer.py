"""Fitting AutoSteer on a tiny model: its parts, its readings, what it keeps on disk, what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import answer_states, collect
from autosteer_lib.defences import AutoSteer, Steer, Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.models import MLLM
from autosteer_lib.pairs import ContrastPairs, split_indices
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import Reading
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.sas import safety_awareness_score
from autosteer_lib.sites import resid_pre
from tests import autosteer_on_tiny
from tests.autosteer_on_tiny import REFUSAL, SETTINGS, unfitted
from tests.defence_checks import see


@pytest.fixture(scope="module")
def pairs() -> ContrastPairs:
    return autosteer_on_tiny.pairs()


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> AutoSteer:
    return autosteer_on_tiny.fitted(tiny)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, mixed_prompts: list[Prompt]) -> AutoSteer:
    return autosteer_on_tiny.half_open(tiny, mixed_prompts)


def test_fit_is_its_parts(tiny: MLLM, pairs: ContrastPairs, fitted: AutoSteer) -> None:
    sites = [resid_pre(layer) for layer in (1, 2, 3)]
    toxic, safe = collect(tiny, pairs.toxic, sites=sites), collect(tiny, pairs.safe, sites=sites)
    scores = safety_awareness_score(toxic, safe).tolist()
    assert fitted.sas_ == dict(zip((1, 2, 3), scores, strict=True))
    assert fitted.layer_ == max(fitted.sas_, key=fitted.sas_.__getitem__)

    train, kept_back = split_indices(len(pairs), held_out=0.2, seed=0)
    column = fitted.layer_ - 1
    prober = SafetyProber(epochs=15, lr=1e-2).fit(
        toxic[train, column],
        safe[train, column],
        held_out=(toxic[kept_back, column], safe[kept_back, column]),
    )
    assert all(torch.equal(a, b) for a, b in zip(prober.weights_, fitted.prober_.weights_, strict=True))

    refusals = answer_states(tiny, pairs.toxic, answer=REFUSAL)
    held = torch.isin(refusals.rows, torch.tensor(kept_back))
    words = tiny.lm_head.weight
    assert isinstance(words, Tensor)
    head = RefusalHead(lr=0.3, weight_decay=0.0, epochs=12, batch_size=4).fit(
        refusals.states[~held],
        refusals.targets[~held],
        words,
        rows=refusals.rows[~held],
        held_out=(refusals.states[held], refusals.targets[held]),
    )
    assert torch.equal(head.matrix, fitted.head_.matrix)


def test_fit_leaves_the_model_and_the_given_parts_as_they_were(tiny: MLLM, pairs: ContrastPairs) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    defence = unfitted()
    defence.fit(tiny, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    assert not hasattr(defence.prober, "weights_")
    assert not hasattr(defence.head, "matrix_")


def test_a_given_layer_is_the_layer_that_is_read(tiny: MLLM, pairs: ContrastPairs) -> None:
    defence = unfitted(layer=1).fit(tiny, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)
    assert (defence.layer_, sorted(defence.sas_)) == (1, [1, 2, 3])
    seen, _ = see(tiny, defence, encode(tiny, pairs.toxic[:2]), settings=SETTINGS)
    states = collect(tiny, pairs.toxic[:2], sites=[resid_pre(1)])[:, 0]
    assert seen.gate_score is not None
    torch.testing.assert_close(seen.gate_score, defence.prober_.score(states), atol=1e-5, rtol=0)
    for layer in (0, 4):
        with pytest.raises(ValueError, match=rf"layer {layer} cannot be probed: tiny has layers 1…3"):
            unfitted(layer=layer).fit(tiny, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)


def test_the_official_reading_runs_to_the_end(tiny: MLLM, pairs: ContrastPairs) -> None:
    mllm = replace(tiny, add_generation_prompt=False)
    pictures = [replace(prompt, surface="image") for prompt in pairs.toxic[:3]]
    reading = Reading.official_code(
        candidate_layers="all",
        prober_checkpoint=9,
        head_checkpoint=2,
        toxic_image_rows=2,
        refusal_text=REFUSAL,
        image_query="describe this picture",
    )
    defence = unfitted(reading).fit(mllm, pairs, refusal_prompts=[*pairs.toxic, *pictures])
    assert (defence.prober_.chosen_epoch_, defence.head_.chosen_epoch_) == (9, 2)
    assert defence.prober_.weights_.w2.shape[0] == 2
    (response,) = defence.respond(mllm, pairs.toxic[:1], settings=SETTINGS)
    assert response.gate_score is not None

    # The head saw every token of these prompts after the first, of all rows that the reading keeps.
    prompts = reading.head_prompts([*pairs.toxic, *pictures])
    assert len(prompts) == len(pairs) + 2
    supervised = answer_states(mllm, prompts, answer=REFUSAL, include_question=True)
    words = tiny.lm_head.weight
    assert isinstance(words, Tensor)
    head = RefusalHead(**defence.head.hyperparameters)
    head.fit(supervised.states, supervised.targets, words, rows=supervised.rows)
    assert torch.equal(head.matrix, defence.head_.matrix)


def test_save_load_gives_the_same_answers(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    restored = AutoSteer.load(mixed.save(tmp_path / "autosteer"), tiny)
    before, after = (d.respond(tiny, mixed_prompts, settings=SETTINGS) for d in (mixed, restored))
    assert [(r.text, r.gate_score, r.triggered) for r in after] == [
        (r.text, r.gate_score, r.triggered) for r in before
    ]
    assert restored.fingerprint == mixed.fingerprint
    assert (restored.layer_, restored.sas_, restored.reading) == (mixed.layer_, mixed.sas_, mixed.reading)
    assert restored.prober_.history_ == mixed.prober_.history_
    assert restored.head_.chosen_epoch_ == mixed.head_.chosen_epoch_
    assert restored.prober.hyperparameters == mixed.prober.hyperparameters


def test_a_state_of_another_model_is_refused(
    tiny: MLLM, other_tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
        fitted.respond(other_tiny, mixed_prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
        fitted.score(other_tiny, mixed_prompts)
    with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
        fitted.always_on().respond(other_tiny, mixed_prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match="fit the defence on this model"):
        AutoSteer.load(fitted.save(tmp_path), other_tiny)
    with pytest.raises(ValueError, match="load the model with add_generation_prompt=True"):
        fitted.respond(replace(tiny, add_generation_prompt=False), mixed_prompts, settings=SETTINGS)
    narrow = RefusalHead.from_matrix(torch.eye(5))
    with pytest.raises(ValueError, match=r"steering matrix is \[5, 5\] and the states of tiny have 32"):
        Steer(narrow).respond(tiny, mixed_prompts, settings=SETTINGS)


def test_reading_and_model_must_end_the_prompt_alike(tiny: MLLM, pairs: ContrastPairs) -> None:
    defence = unfitted(Reading(add_generation_prompt=False))
    with pytest.raises(ValueError, match=r"load\(…, add_generation_prompt=False\)"):
        defence.fit(tiny, pairs, refusal_prompts=pairs.toxic)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_refusals_are_refused_before_the_model_runs(
    tiny: MLLM, pairs: ContrastPairs, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny), "forward", None)
    with pytest.raises(
        ValueError, match=f"refusal_prompts holds {count} to train the head on; give 2 or more"
    ):
        unfitted().fit(tiny, pairs, refusal_prompts=pairs.toxic[:count])


def test_parts_must_follow_the_reading() -> None:
    with pytest.raises(ValueError, match=r"prober has output='sigmoid' and the reading says 'softmax2'"):
        AutoSteer(reading=Reading(prober_output="softmax2"), prober=SafetyProber())
    with pytest.raises(ValueError, match=r"head has checkpoint='last' and the reading says 'held_out'"):
        AutoSteer(head=RefusalHead(checkpoint="last"))
    assert AutoSteer(reading=Reading.official_code()).prober.checkpoint == 37
    with pytest.raises(ValueError, match=r"held_out = 1\.0 must be a share"):
        AutoSteer(held_out=1.0)
    with pytest.raises(ValueError, match=r"threshold = 1.5 is outside \[0, 1\]"):
        AutoSteer(threshold=1.5)


def test_before_fit(tiny: MLLM, mixed_prompts: list[Prompt], tmp_path: Path) -> None:
    defence = AutoSteer()
    with pytest.raises(NotFittedError, match="call fit"):
        defence.respond(tiny, mixed_prompts, settings=SETTINGS)
    with pytest.raises(NotFittedError, match=r"AutoSteer\.load"):
        defence.save(tmp_path)
    with pytest.raises(NotFittedError):
        _ = defence.fingerprint
    with pytest.raises(NotFittedError):
        Steer(RefusalHead())


def test_fingerprints_see_all_that_an_answer_depends_on(fitted: AutoSteer, tiny: MLLM) -> None:
    strict = fitted.retuned()
    strict.reading = replace(fitted.reading, gate_comparison=">")
    defences = [
        fitted,
        fitted.retuned(epsilon=0.2),
        fitted.retuned(threshold=0.6),
        strict,
        fitted.always_on(),
        fitted.always_on(epsilon=0.2),
        Steer(RefusalHead.from_matrix(torch.eye(tiny.dim)), fitted_on=FittedOn.of(tiny)),
        Undefended(),
    ]
    assert len({defence.fingerprint for defence in defences}) == len(defences)
    assert fitted.retuned().fingerprint == fitted.fingerprint
    assert [defence.name for defence in (Undefended(), fitted.always_on(), fitted)] == [
        "Orig.",
        "Steer",
        "AutoSteer",
    ]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AutoSteer(epsilon=cast(Any, "0.1")), "epsilon is '0.1'"),
        (lambda: AutoSteer(threshold=cast(Any, None)), "threshold is None"),
        (lambda: AutoSteer(layer=cast(Any, np.int64(2))), r"layer is np\.int64\(2\)"),
        (lambda: AutoSteer(prober=cast(Any, SafetyProber)), "prober is the class SafetyProber itself"),
        (lambda: SafetyProber(epochs=cast(Any, 2.5)), r"epochs is 2\.5"),
        (lambda: RefusalHead(lr=cast(Any, "1e-5")), "lr is '1e-5'"),
        (lambda: Steer(cast(Any, torch.eye(2))), r"head is tensor.*; give head_ of a fitted AutoSteer"),
    ],
)
def test_a_setting_of_another_type_is_told_before_the_fit(make: Callable[[], object], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        make()


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"pairs": ([], [])}, r"pairs is .*tuple; give ContrastPairs\(toxic, safe\)"),
        ({"refusal_prompts": ["a"]}, "refusal_prompts holds 'a'"),
        ({"refusal_text": ["a"]}, "refusal_text is .*; give the words as one string"),
        ({"batch_size": "3"}, "batch_size is '3'"),
        ({"cache": "states"}, r"cache is 'states', of type str; give a folder as Path\(name\)"),
    ],
)
def test_slips_in_a_fit_are_told_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(MLLM, "forward", None)
    sides = [[Prompt(id=f"{w}{i}", text=f"{w} {i}") for i in range(4)] for w in ("knife", "sun")]
    given: dict[str, Any] = {
        "pairs": ContrastPairs(*map(tuple, sides)),
        "refusal_prompts": sides[0],
        **changed,
    }
    with pytest.raises(TypeError, match=told):
        AutoSteer().fit(tiny, given.pop("pairs"), **given)
