"""The refusal direction on a tiny model: its fit against parts computed by hand, addition and ablation at every token."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences.refusal_direction import RefusalDirection
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Verdict
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_candidates import next_token_kl, refusal_score
from autosteer_lib.refusal_sweeps import (
    encode_once,
    last_before_fall,
    next_logits,
    post_instruction_tokens,
    steering_reach,
)
from autosteer_lib.sites import Edit, Site, attach, resid_post, resid_pre
from autosteer_lib.text_sets import TextSets
from tests.defence_checks import (
    CLOSE,
    check_against_oracle,
    check_everything,
    check_fingerprints,
    see,
    weights_of,
)
from tests.mars_on_tiny import SETTINGS, ByLabel, text_sets
from tests.test_pooled_states import hidden_of

FREE: dict[str, Any] = {"keep": "all", "least_induced": None, "most_kl": None}


def fit(mllm: MLLM, **changes: Any) -> RefusalDirection:
    return RefusalDirection(**{**FREE, **changes}).fit(mllm, text_sets(), settings=SETTINGS, judge=ByLabel())


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> RefusalDirection:
    return fit(tiny)


def logits_with(mllm: MLLM, prompt: Prompt, edits: Any) -> Tensor:
    with torch.no_grad(), attach(mllm, edits):
        return mllm.forward(encode(mllm, [prompt]).inputs).logits[:, -1]


def same(edits: Mapping[Site, Edit], width: int) -> Mapping[Site, Edit]:
    """Prompt and answer alike."""
    return edits


def ablation(mllm: MLLM, r: Tensor) -> Any:
    """P = 1 − r̂r̂ᵀ wherever a block reads, and on what the last one hands on."""
    p = torch.eye(len(r)) - torch.outer(r, r) / torch.dot(r, r)
    sites = [*(resid_pre(layer) for layer in range(mllm.layers)), resid_post(mllm.layers - 1)]
    return dict.fromkeys(sites, lambda hidden: hidden @ p)


def test_fit_is_its_parts(tiny: MLLM, fitted: RefusalDirection) -> None:
    sets = text_sets()
    assert post_instruction_tokens(tiny) == 1
    # Candidates: the input of each block at the one token after the words.
    means = [torch.stack([hidden_of(tiny, p)[-1] for p in side]).mean(0) for side in (sets.unsafe, sets.safe)]
    torch.testing.assert_close(fitted.directions_[-1, 2], means[0] - means[1], **CLOSE)
    assert not fitted.directions_[-1, 0].any()  # the same token of the template in every prompt
    # Tokens: those that harmful prompts are answered with first, and harmless ones are not.
    said = [[int(logits_with(tiny, p, {}).argmax()) for p in side] for side in (sets.unsafe, sets.safe)]
    for token in fitted.refusal_tokens_:
        assert said[0].count(token) > said[1].count(token)
    # Scores of one candidate, prompt by prompt.
    r = fitted.directions_[-1, 2]
    without, added = ablation(tiny, r), {resid_pre(2): lambda hidden: hidden + r}
    tokens = fitted.refusal_tokens_
    bypass = [refusal_score(logits_with(tiny, p, without), tokens) for p in sets.validation_unsafe]
    induced = [refusal_score(logits_with(tiny, p, added), tokens) for p in sets.validation_safe]
    kl = [
        next_token_kl(logits_with(tiny, p, {}), logits_with(tiny, p, without)) for p in sets.validation_safe
    ]
    for found, by_hand in zip(fitted.scores_, (bypass, induced, kl), strict=True):
        assert float(found[-1, 2]) == pytest.approx(float(torch.cat(by_hand).mean()), abs=1e-4)
        assert found.isnan().tolist() == [[True, False, False, True]]  # no direction; and not below 0.8 L
    assert fitted.scores_.bypass[0, fitted.layer_] == fitted.scores_.bypass.nan_to_num(9e9).min()
    assert fitted.position_ == -1


def test_addition_is_at_every_token_of_prompt_and_answer(
    tiny: MLLM, fitted: RefusalDirection, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    for coefficient in (1.0, -2.0):
        defence = fitted.retuned(coefficient=coefficient, layer=2, position=-1)
        r = coefficient * fitted.directions_[-1, 2]
        edits: Mapping[Site, Edit] = {resid_pre(2): partial(torch.add, r)}
        responses = check_against_oracle(tiny, defence, encoded, partial(same, edits))
        assert {(x.gate_score, x.triggered, x.model_calls) for x in responses} == {(None, None, 1)}


def test_ablation_is_at_every_block_and_token(
    tiny: MLLM, fitted: RefusalDirection, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    defence = fitted.retuned(intervention="ablate", layer=2, position=-1)
    r = fitted.directions_[-1, 2]
    check_against_oracle(tiny, defence, encoded, partial(same, ablation(tiny, r)))
    # Nothing of it is left where the next token is read off.
    seen: list[Tensor] = []
    steering = defence.steering(tiny, encoded)
    assert steering is not None
    with (
        torch.no_grad(),
        attach(tiny, steering.edits()),
        attach(tiny, {resid_post(3): lambda hidden: seen.append(hidden)}),
    ):
        tiny.forward(encoded.inputs)
    assert (seen[0] @ r / r.norm()).abs().max() < 1e-4


@pytest.mark.parametrize("intervention", ["add", "ablate"])
def test_the_battery(
    tiny: MLLM,
    other_tiny: MLLM,
    fitted: RefusalDirection,
    mixed_prompts: list[Prompt],
    tmp_path: Path,
    intervention: str,
) -> None:
    defence = fitted.retuned(intervention=intervention)
    check_everything(tiny, other_tiny, defence, mixed_prompts, tmp_path, unfitted=RefusalDirection())


def test_the_scores_come_back_from_disk(tiny: MLLM, fitted: RefusalDirection, tmp_path: Path) -> None:
    restored = RefusalDirection.load(fitted.save(tmp_path), tiny)
    for before, after in zip(fitted.scores_, restored.scores_, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    assert restored.refusal_tokens_ == fitted.refusal_tokens_


def test_nothing_added_is_the_plain_model(
    tiny: MLLM, fitted: RefusalDirection, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    nothing = fitted.retuned(coefficient=0.0)
    assert nothing.steering(tiny, encoded) is None
    plain = [r.text for r in see(tiny, None, encoded)[1]]
    assert [r.text for r in nothing.answer(tiny, encoded, settings=SETTINGS)] == plain


class RefusedByFirstToken:
    """Refused is what begins with the word that most harmful texts are answered with."""

    name = "by first word"

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        return Verdict(unsafe=False, refused=answer.split()[:1] == [self.word])


def test_prompts_whose_score_has_the_wrong_sign_are_left_out(tiny: MLLM, fitted: RefusalDirection) -> None:
    """A random model says one of its words with a chance far below one half: no harmful prompt looks refused."""
    sets = text_sets()
    answers = [r.text.split()[0] for r in see(tiny, None, encode(tiny, sets.unsafe))[1]]
    judge = RefusedByFirstToken(max(set(answers), key=answers.count))
    with pytest.raises(ValueError, match=r"is about to refuse .* in \d+ of 12, \d+ of 12.* or keep='all'"):
        RefusalDirection(keep="score").fit(tiny, sets, settings=SETTINGS, judge=judge)
    prompts, scores = list(sets.unsafe[:3]), torch.tensor([-0.1, 0.0, 0.1])
    keep = RefusalDirection(keep="score")
    assert keep._kept(prompts, scores, harmful=True) == prompts[1:]
    assert keep._kept(prompts, scores, harmful=False) == prompts[:2]
    assert fitted._kept(prompts, scores, harmful=True) == prompts


def test_other_tests_choose_again_without_a_fit(fitted: RefusalDirection) -> None:
    scores = fitted.scores_
    ceiling = float(scores.kl[0, fitted.layer_])
    others = [layer for layer in (1, 2) if layer != fitted.layer_ and scores.kl[0, layer] < ceiling]
    if others:
        assert fitted.retuned(most_kl=ceiling * 0.999).layer_ in others
    with pytest.raises(ValueError, match=r"none of 4 candidate directions passes .*induced below 1000"):
        fitted.retuned(least_induced=1000.0)
    with pytest.raises(ValueError, match=r"coverage=0.5 needs a fit of its own"):
        fitted.retuned(coverage=0.5)
    with pytest.raises(ValueError, match="there is no direction at layer=0, position=-1"):
        fitted.retuned(layer=0, position=-1)
    with pytest.raises(ValueError, match="layer=1, position=-2 is no candidate"):
        fitted.retuned(layer=1, position=-2)


def test_fingerprints_see_what_an_answer_depends_on(fitted: RefusalDirection) -> None:
    at = {"layer": 1, "position": -1}
    check_fingerprints(
        [
            fitted.retuned(**at),
            fitted.retuned(layer=2, position=-1),
            fitted.retuned(**at, coefficient=2.0),
            fitted.retuned(**at, intervention="ablate"),
        ]
    )
    found = {"layer": fitted.layer_, "position": fitted.position_}
    assert fitted.retuned(**found).fingerprint == fitted.fingerprint


def test_fit_leaves_the_model_as_it_was(tiny: MLLM, fitted: RefusalDirection) -> None:
    before = weights_of(tiny)
    assert fit(tiny).fingerprint == fitted.fingerprint
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())


def test_what_cannot_be_fitted_is_refused_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    with pytest.raises(ValueError, match="12 unsafe texts were given; at least 13"):
        fit(tiny, fewest=13)
    with pytest.raises(ValueError, match=r"load\(…, add_generation_prompt=True\)"):
        fit(replace(tiny, add_generation_prompt=False))
    with pytest.raises(ValueError, match="layer 4 does not exist; tiny has layers 0…3"):
        fit(tiny, layer=4, position=-1)
    with pytest.raises(ValueError, match="give both, or neither"):
        RefusalDirection(layer=1)
    with pytest.raises(ValueError, match=r"deepest=0.0"):
        RefusalDirection(deepest=0.0)


@pytest.mark.usefixtures("as_a_user")
def test_an_unknown_intervention() -> None:
    with pytest.raises(ValueError, match=r"intervention='remove'.*'add' or 'ablate'"):
        RefusalDirection(intervention="remove")  # type: ignore[arg-type]


def test_reach_is_the_share_of_prompts_turned_to_refusal(tiny: MLLM, fitted: RefusalDirection) -> None:
    prompts = text_sets().validation_safe
    vectors = 4 * fitted.directions_[-1]
    reach = steering_reach(
        tiny, vectors, harmless=encode_once(tiny, prompts, batch_size=5), tokens=fitted.refusal_tokens_
    )
    for layer in range(tiny.layers):
        edits = {resid_post(layer): lambda hidden, v=vectors[layer]: hidden + v}
        scores = torch.cat(
            [refusal_score(logits_with(tiny, p, edits), fitted.refusal_tokens_) for p in prompts]
        )
        assert float(reach[layer]) == pytest.approx(float((scores > 0).float().mean()))
    assert last_before_fall(torch.tensor([0.1, 0.9, 1.0, 0.95, 0.4])) == 3
    with pytest.raises(ValueError, match="at no layer"):
        last_before_fall(torch.zeros(3))


@pytest.mark.battery
def test_every_family_is_steered(family: MLLM, family_prompts: list[Prompt]) -> None:
    """The template's tokens after the words are the same in every prompt, words or pictures before them."""
    tokens = post_instruction_tokens(family)
    encoded = encode(family, family_prompts)
    ends = encoded.inputs["input_ids"][:, -tokens:]
    assert (ends == ends[:1]).all()
    sets = text_sets()
    few = TextSets(
        unsafe=sets.unsafe,
        safe=sets.safe,
        validation_unsafe=sets.validation_unsafe[:2],
        validation_safe=sets.validation_safe[:2],
    )
    defence = RefusalDirection(**FREE, fewest=2, deepest=0.5).fit(
        family, few, settings=GenerationSettings(max_new_tokens=1), judge=ByLabel()
    )
    assert defence.directions_.shape[:2] == (tokens, family.layers)
    plain, _ = see(family, None, encoded)
    for intervention in ("add", "ablate"):
        seen, _ = see(family, defence.retuned(intervention=intervention), encoded)
        assert (seen.logits[0] != plain.logits[0]).any(dim=-1).all()
        alone, _ = see(
            family, defence.retuned(intervention=intervention), encode(family, family_prompts[2:3])
        )
        torch.testing.assert_close(alone.logits[0][0], seen.logits[0][2], atol=1e-4, rtol=1e-4)
    logits = next_logits(family, encode_once(family, family_prompts, batch_size=3))
    with torch.no_grad():
        expected = family.forward(encoded.inputs).logits[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
