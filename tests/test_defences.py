"""Defences on a tiny model: AutoSteer's gate and head against the published formulas, row by row and step by step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import answer_states, collect
from autosteer_lib.defences import AutoSteer, Steer, SteeringDefence, Undefended
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.generation import GenerationSettings, Response, Steering, generate
from autosteer_lib.models import MLLM, load
from autosteer_lib.pairs import ContrastPairs, split_indices
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import Reading
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.sas import safety_awareness_score
from autosteer_lib.sites import Attachment, Edit, Site, attach, final_norm, logits, resid_pre

SETTINGS = GenerationSettings(max_new_tokens=6)
REFUSAL = "sorry cannot help"


@pytest.fixture(scope="module")
def pairs() -> ContrastPairs:
    words = [f"{verb} {what}" for verb in ("make", "buy", "use") for what in ("the", "a", "this", "that")]
    return ContrastPairs(
        tuple(Prompt(text=f"how do i {w} poison ?", id=f"t{i}", harmful=True) for i, w in enumerate(words)),
        tuple(Prompt(text=f"how do i {w} sun ?", id=f"s{i}", harmful=False) for i, w in enumerate(words)),
    )


def unfitted(reading: Reading | None = None, **settings: object) -> AutoSteer:
    reading = reading or Reading()
    return AutoSteer(
        reading=reading,
        prober=SafetyProber(
            epochs=15, lr=1e-2, output=reading.prober_output, checkpoint=reading.prober_checkpoint
        ),
        head=RefusalHead(
            lr=0.3, weight_decay=0.0, epochs=12, batch_size=4, checkpoint=reading.head_checkpoint
        ),
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def fitted(tiny: MLLM, pairs: ContrastPairs) -> AutoSteer:
    return unfitted(held_out=0.2).fit(tiny, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]) -> AutoSteer:
    """A threshold half of the prompts reach, and a head strong enough to be seen in every answer."""
    scores = fitted.score(tiny, mixed_prompts).sort().values
    defence = fitted.retuned(epsilon=2.0, threshold=float(scores[3] + scores[4]) / 2)
    assert 0 < int(defence.reading.opens(scores, threshold=defence.threshold).sum()) < len(scores)
    return defence


def texts(responses: Sequence[Response]) -> list[str]:
    return [response.text for response in responses]


def official_logits(h: Tensor, words: Tensor, matrix: Tensor, epsilon: float) -> Tensor:
    """H · (E + ε · E · S)ᵀ."""
    return h @ (words + epsilon * words @ matrix).T


class Watched:
    """A steering under observation: the logits, and the hooks that are there, at each step."""

    def __init__(self, inner: Steering, mllm: MLLM) -> None:
        self.inner, self.mllm = inner, mllm
        self.steps: list[Tensor] = []
        self.sites: list[set[str]] = []
        self.attachment: Attachment | None = None
        self.gate_score: Tensor | None = None
        self.triggered: Tensor | None = None

    def edits(self) -> Mapping[Site, Edit]:
        return {**self.inner.edits(), logits(): self.read}

    def bind(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.inner.bind(attachment)

    def read(self, hidden: Tensor) -> None:
        assert self.attachment is not None
        self.gate_score, self.triggered = self.inner.gate_score, self.inner.triggered
        self.steps.append(hidden[:, -1].clone())
        self.sites.append({str(site) for site in self.attachment.sites} - {"logits"})


def watch(mllm: MLLM, defence: SteeringDefence, encoded: Encoded) -> tuple[Watched, list[Response]]:
    steering = defence.steering(mllm, encoded)
    assert steering is not None
    watched = Watched(steering, mllm)
    return watched, generate(mllm, encoded, settings=SETTINGS, steering=watched)


def plain_final_states(mllm: MLLM, encoded: Encoded, answers: Tensor) -> Tensor:
    """h at the last token of prompt + answer so far, of the plain model, in one pass without a cache."""
    inputs = dict(encoded.inputs)
    inputs["input_ids"] = torch.cat((inputs["input_ids"], answers), dim=1)
    inputs["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(answers)), dim=1)
    read: list[Tensor] = []
    with torch.no_grad(), attach(mllm, {final_norm(): lambda hidden: read.append(hidden[:, -1].clone())}):
        mllm.forward(inputs)
    return read[0]


def test_cached_answers_equal_official_logits_without_a_cache(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    watched, responses = watch(tiny, mixed, encoded)
    assert watched.triggered is not None
    words, matrix = tiny.lm_head.weight, mixed.head_.matrix
    assert isinstance(words, Tensor)
    answers = torch.zeros(len(mixed_prompts), 0, dtype=torch.long)
    for step in watched.steps:
        h = plain_final_states(tiny, encoded, answers)
        steered = official_logits(h, words, matrix, mixed.epsilon)
        plain = official_logits(h, words, matrix, 0.0)
        expected = torch.where(watched.triggered[:, None], steered, plain)
        torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-4)
        answers = torch.cat((answers, step.argmax(dim=-1, keepdim=True)), dim=1)
    assert texts(responses) == tiny.tokenizer.batch_decode(answers, skip_special_tokens=True)


def test_only_triggered_rows_change(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts)
    plain = Undefended().answer(tiny, encoded, settings=SETTINGS)
    guarded = mixed.answer(tiny, encoded, settings=SETTINGS)
    changed = [before.text != after.text for before, after in zip(plain, guarded, strict=True)]
    assert changed == [response.triggered for response in guarded]


def test_rows_left_alone_have_the_plain_models_logits_bit_for_bit(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    steered, _ = watch(tiny, mixed, encoded)
    shut, _ = watch(tiny, mixed.retuned(threshold=1.0), encoded)
    assert steered.triggered is not None
    for with_gate, without in zip(steered.steps, shut.steps, strict=True):
        assert torch.equal(with_gate[~steered.triggered], without[~steered.triggered])


def test_a_row_of_a_batch_answers_as_alone(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    together = mixed.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    for prompt, response in zip(mixed_prompts, together, strict=True):
        (alone,) = mixed.respond(tiny, [prompt], settings=SETTINGS)
        assert (alone.text, alone.triggered) == (response.text, response.triggered)
        assert alone.gate_score == pytest.approx(response.gate_score, abs=1e-5)


def test_respond_keeps_the_prompts_order(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    small = replace(SETTINGS, batch_size=2)
    forward = mixed.respond(tiny, mixed_prompts, settings=small)
    assert [response.prompt_id for response in forward] == [prompt.id for prompt in mixed_prompts]
    backward = mixed.respond(tiny, mixed_prompts[::-1], settings=small)
    assert texts(backward) == texts(forward)[::-1]


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_the_gate_reads_the_last_prompt_token(
    tiny: MLLM,
    fitted: AutoSteer,
    mixed_prompts: list[Prompt],
    pairs: ContrastPairs,
    add_generation_prompt: bool,
) -> None:
    """The template is pinned: <user> words [<assistant>]. So is the state: hidden_states[layer] there."""
    mllm = replace(tiny, add_generation_prompt=add_generation_prompt)
    defence = fitted
    if not add_generation_prompt:
        reading = Reading(add_generation_prompt=False)
        defence = unfitted(reading).fit(mllm, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)
    for prompt in mixed_prompts:
        encoded = encode(mllm, [prompt])
        last = tiny.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0, -1].item())
        assert last == ("<assistant>" if add_generation_prompt else prompt.text.split()[-1])
        with torch.no_grad():
            output = tiny.model(**encoded.inputs, output_hidden_states=True, use_cache=False)
        state = output.hidden_states[defence.layer_][0, -1]
        (response,) = defence.answer(mllm, encoded, settings=SETTINGS)
        assert response.gate_score == pytest.approx(defence.prober_.score(state[None]).item(), abs=1e-5)


def test_score_is_what_the_gate_sees(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    responses = mixed.respond(tiny, mixed_prompts, settings=SETTINGS)
    scores = mixed.score(tiny, mixed_prompts)
    assert [r.gate_score for r in responses] == pytest.approx(scores.tolist(), abs=1e-5)
    assert [r.triggered for r in responses] == (scores >= mixed.threshold).tolist()


def test_a_score_on_the_threshold_opens_the_papers_gate_and_not_the_codes(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts[:1])
    watched, _ = watch(tiny, fitted, encoded)
    assert watched.gate_score is not None
    exact = fitted.retuned(threshold=float(watched.gate_score[0]))
    strict = fitted.retuned(threshold=exact.threshold)
    strict.reading = replace(strict.reading, gate_comparison=">")
    assert exact.answer(tiny, encoded, settings=SETTINGS)[0].triggered is True
    assert strict.answer(tiny, encoded, settings=SETTINGS)[0].triggered is False


def test_steer_a_b_a(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    """The answers to A come again after B, whose gates are others, and after an error."""
    some, others = encode(tiny, mixed_prompts[:4]), encode(tiny, mixed_prompts[3:])
    first = mixed.answer(tiny, some, settings=SETTINGS)
    middle = mixed.answer(tiny, others, settings=SETTINGS)
    with pytest.raises(ValueError, match="leaves room for"):
        mixed.answer(tiny, some, settings=GenerationSettings(max_new_tokens=1000))
    again = mixed.answer(tiny, some, settings=SETTINGS)
    assert [(r.text, r.gate_score, r.triggered) for r in again] == [
        (r.text, r.gate_score, r.triggered) for r in first
    ]
    assert [r.triggered for r in middle] != [r.triggered for r in first]


def test_hooks_that_have_done_their_work_are_gone(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    modules = (tiny.final_norm, *tiny.blocks)
    before = [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules]
    active, _ = watch(tiny, mixed, encoded)
    assert active.sites == [{"final_norm"}] * SETTINGS.max_new_tokens
    idle, _ = watch(tiny, mixed.retuned(threshold=1.0), encoded)
    assert idle.sites == [set()] * SETTINGS.max_new_tokens
    assert [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules] == before


def test_the_gate_is_decided_once(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    score = SafetyProber.score

    def counted(self: SafetyProber, states: Tensor) -> Tensor:
        calls.append(len(states))
        return score(self, states)

    monkeypatch.setattr(SafetyProber, "score", counted)
    mixed.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    assert calls == [len(mixed_prompts)]


def test_a_score_that_is_not_a_number_does_not_pass_as_safe(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    broken = fitted.retuned()
    prober = SafetyProber.from_tensors(
        {**fitted.prober_.tensors, "b1": fitted.prober_.weights_.b1 * float("nan")},
        hyperparameters=fitted.prober_.hyperparameters,
        history=[],
        chosen_epoch=1,
    )
    broken.prober_ = prober
    before = list(tiny.final_norm._forward_hooks)
    with pytest.raises(ValueError, match=r"not a number in rows \[0, 1\]"):
        broken.answer(tiny, encode(tiny, mixed_prompts[:2]), settings=SETTINGS)
    assert list(tiny.final_norm._forward_hooks) == before


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


def test_the_head_makes_the_model_refuse(tiny: MLLM, fitted: AutoSteer, pairs: ContrastPairs) -> None:
    plain = Undefended().respond(tiny, pairs.toxic, settings=SETTINGS)
    steered = fitted.always_on().respond(tiny, pairs.toxic, settings=SETTINGS)
    assert sum(REFUSAL in text for text in texts(plain)) == 0
    assert sum(REFUSAL in text for text in texts(steered)) > len(pairs) / 2


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
    watched, _ = watch(tiny, defence, encode(tiny, pairs.toxic[:2]))
    states = collect(tiny, pairs.toxic[:2], sites=[resid_pre(1)])[:, 0]
    assert watched.gate_score is not None
    torch.testing.assert_close(watched.gate_score, defence.prober_.score(states), atol=1e-5, rtol=0)
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


def test_steer_is_autosteer_with_every_gate_open(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    always = fitted.retuned(epsilon=1.0).always_on()
    gated = fitted.retuned(epsilon=1.0, threshold=0.0)
    steered = always.respond(tiny, mixed_prompts, settings=SETTINGS)
    assert texts(steered) == texts(gated.respond(tiny, mixed_prompts, settings=SETTINGS))
    assert {(r.gate_score, r.triggered) for r in steered} == {(None, None)}


def test_epsilon_zero_is_the_plain_model(tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    plain = texts(Undefended().respond(tiny, mixed_prompts, settings=SETTINGS))
    nothing = fitted.always_on(epsilon=0.0)
    assert nothing.steering(tiny, encode(tiny, mixed_prompts[:1])) is None
    assert texts(nothing.respond(tiny, mixed_prompts, settings=SETTINGS)) == plain
    gated = fitted.retuned(epsilon=0.0, threshold=0.0)
    assert texts(gated.respond(tiny, mixed_prompts, settings=SETTINGS)) == plain


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_models_are_gated_in_float32(
    tiny_folder: Path, mixed: AutoSteer, mixed_prompts: list[Prompt], dtype: str
) -> None:
    half = load(tiny_folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    watched, responses = watch(half, mixed, encode(half, mixed_prompts))
    assert watched.gate_score is not None
    assert watched.gate_score.dtype == torch.float32
    assert {response.triggered for response in responses} == {True, False}


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
