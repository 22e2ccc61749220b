"""CoCA: two prompts in one batch, against the formula by forward passes without batch and without cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import Coca, Prompted, Undefended
from autosteer_lib.defences.coca import TwoStreams
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response, generate
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site
from tests.planted import bill, no_model_runs
from tests.test_battery import hooks_of, one_more

SETTINGS = GenerationSettings(max_new_tokens=5, batch_size=3)
PRINCIPLE = "please help with the sun , tell me about it : {question} sorry"
CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


class Recorded:
    """The edits of a batch, and the logits that they gave at each step."""

    def __init__(self, inner: TwoStreams) -> None:
        self.inner = inner
        self.gate_score: Tensor | None = None
        self.triggered: Tensor | None = None
        self.logits: list[Tensor] = []

    def edits(self) -> Mapping[Site, Edit]:
        ((site, edit),) = self.inner.edits().items()

        def write(scores: Tensor) -> Tensor:
            changed = edit(scores)
            assert changed is not None
            self.logits.append(changed[:, -1].clone())
            return changed

        return {site: write}

    def bind(self, attachment: Attachment) -> None:
        self.inner.bind(attachment)


def watch(mllm: MLLM, defence: Coca, prompts: list[Prompt]) -> tuple[list[Tensor], list[Response]]:
    recorded = Recorded(defence.contrast())
    responses = generate(mllm, defence.streams(mllm, prompts), settings=SETTINGS, steering=recorded)
    return recorded.logits, responses


def with_principle(prompt: Prompt) -> Prompt:
    return Prompt(
        id=prompt.id, text=PRINCIPLE.format(question=prompt.text), images=prompt.images, videos=prompt.videos
    )


@pytest.mark.parametrize(("anchor", "weights"), [("principled", (3.5, -2.5)), ("plain", (2.5, -1.5))])
def test_every_step_is_the_contrast_of_two_single_prompts_without_a_cache(
    family: MLLM,
    family_prompts: list[Prompt],
    anchor: Literal["principled", "plain"],
    weights: tuple[float, float],
) -> None:
    """So left padding, cache rows and positions of pictures are right in both streams of the batch."""
    defence = Coca(alpha=2.5, principle=PRINCIPLE, anchor=anchor)
    steps, responses = watch(family, defence, family_prompts)
    assert len(steps) == SETTINGS.max_new_tokens
    rows = len(family_prompts)
    for row, prompt in enumerate(family_prompts):
        streams = [encode(family, [asked]).inputs for asked in (with_principle(prompt), prompt)]
        for scores in steps:
            assert torch.equal(scores[row], scores[rows + row])
            with torch.no_grad():
                l_s, l_0 = (family.forward(inputs).logits[0, -1] for inputs in streams)
            expected = weights[0] * l_s + weights[1] * l_0
            seen = expected > -1e30  # a family may close tokens that it never says, after the unembedding
            by_hand = expected[seen] - expected[seen].max()
            ours = scores[row][seen]
            torch.testing.assert_close(ours - ours.max(), by_hand, **CLOSE)
            said = scores[row][seen].argmax()
            token = seen.nonzero()[said].view(1, 1)
            streams = [one_more(inputs, token) for inputs in streams]
        assert responses[row].text == responses[rows + row].text


def test_a_row_of_a_batch_is_answered_as_alone_and_both_streams_are_paid_for(
    tiny: MLLM, mixed_prompts: list[Prompt]
) -> None:
    defence = Coca(principle=PRINCIPLE)
    together = defence.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    in_batches = defence.respond(tiny, mixed_prompts, settings=SETTINGS)
    for prompt, one, other in zip(mixed_prompts, together, in_batches, strict=True):
        (alone,) = defence.respond(tiny, [prompt], settings=SETTINGS)
        assert one.text == other.text == alone.text
        assert bill(one)[:3] == bill(other)[:3] == bill(alone)[:3]
        lengths = encode(tiny, [with_principle(prompt)]).lengths[0] + encode(tiny, [prompt]).lengths[0]
        assert (one.prompt_id, one.model_calls, one.prompt_tokens) == (prompt.id, 2, lengths)
        assert one.new_tokens == 2 * SETTINGS.max_new_tokens
        assert one.seconds > 0
        assert (one.triggered, one.gate_score, one.raw_text) == (None, None, None)
    assert defence.respond(tiny, [], settings=SETTINGS) == []


def test_strength_zero_is_the_anchors_own_prompt(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    def texts(defence: Coca | Prompted | Undefended) -> list[str]:
        return [r.text for r in defence.respond(tiny, mixed_prompts, settings=SETTINGS)]

    assert texts(Coca(alpha=0.0, principle=PRINCIPLE)) == texts(Prompted(PRINCIPLE))
    assert texts(Coca(alpha=0.0, principle=PRINCIPLE, anchor="plain")) == texts(Undefended())
    # one unit of α lies between the anchors
    assert texts(Coca(alpha=3.0, principle=PRINCIPLE, anchor="plain")) == texts(
        Coca(alpha=2.0, principle=PRINCIPLE)
    )
    assert texts(Coca(principle=PRINCIPLE)) != texts(Prompted(PRINCIPLE))


def test_an_answer_ends_for_both_streams_at_once(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    """An end that the contrast chooses ends the row; the others go on."""
    end = tiny.model.generation_config.eos_token_id
    assert isinstance(end, int)
    steps, _ = watch(tiny, Coca(principle=PRINCIPLE), mixed_prompts)
    first = [int(scores) for scores in steps[1][: len(mixed_prompts)].argmax(dim=-1)]
    tiny.model.generation_config.eos_token_id = first[0]
    try:
        answers = Coca(principle=PRINCIPLE).answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    finally:
        tiny.model.generation_config.eos_token_id = end
    said = torch.stack([scores.argmax(dim=-1) for scores in steps])[:, : len(mixed_prompts)]
    expected = [
        2 * (int((row == first[0]).nonzero()[0]) + 1 if (row == first[0]).any() else SETTINGS.max_new_tokens)
        for row in said.T
    ]
    assert [answer.new_tokens for answer in answers] == expected
    assert expected[0] <= 4


def test_a_b_a_and_no_hook_stays(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    before = hooks_of(tiny)
    defence = Coca(principle=PRINCIPLE)
    first = defence.respond(tiny, mixed_prompts[:4], settings=SETTINGS)
    defence.respond(tiny, mixed_prompts[3:], settings=SETTINGS)
    again = defence.respond(tiny, mixed_prompts[:4], settings=SETTINGS)
    assert [r.text for r in again] == [r.text for r in first]
    assert hooks_of(tiny) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_the_winner(tiny_folder: Path, mixed_prompts: list[Prompt], dtype: str) -> None:
    """The contrast is taken in float32 and handed on less its maximum: rounding cannot make another token win."""
    half = load(tiny_folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    steps, _ = watch(half, Coca(alpha=50.0, principle=PRINCIPLE), mixed_prompts)
    for scores in steps:
        assert scores.dtype == half.dtype
        assert ((scores == 0).sum(dim=-1) == 1).all()
    assert len(Coca(principle=PRINCIPLE).respond(half, mixed_prompts, settings=SETTINGS)) == 7


def test_a_lead_that_rounding_would_lose_is_kept() -> None:
    """5 · 100 − 4 · 50 = 300 and 5 · 100.5 − 4 · 50.5 = 300.5: one number in bfloat16."""
    scores = torch.tensor([[[100.0, 100.5]], [[50.0, 50.5]]], dtype=torch.bfloat16)
    assert torch.tensor([300.0, 300.5], dtype=torch.bfloat16).unique().numel() == 1
    ((_, edit),) = TwoStreams(5.0, -4.0).edits().items()
    mixed = edit(scores)
    assert mixed is not None
    assert mixed.tolist() == [[[-0.5, 0.0]], [[-0.5, 0.0]]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_logits_are_no_answer(tiny: MLLM, mixed_prompts: list[Prompt], value: float) -> None:
    before = hooks_of(tiny)
    ((_, edit),) = TwoStreams(2.0, -1.0).edits().items()
    with pytest.raises(ValueError, match=r"2 l_s − 1 l_0 is not finite: the logits overflowed"):
        edit(torch.tensor([[[0.0, value]], [[0.0, 1.0]]]))
    with pytest.raises(ValueError, match=r"lower alpha"):
        Coca(alpha=3.4e38, principle=PRINCIPLE).respond(tiny, mixed_prompts[:2], settings=SETTINGS)
    assert hooks_of(tiny) == before
    assert len(Coca(principle=PRINCIPLE).respond(tiny, mixed_prompts[:2], settings=SETTINGS)) == 2


def test_wrong_options_are_refused(as_a_user: None) -> None:
    with pytest.raises(ValueError, match=r"alpha=-0\.1; give 0 or more"):
        Coca(alpha=-0.1)
    for alpha in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"alpha = {alpha}; give a finite number"):
            Coca(alpha=alpha)
    with pytest.raises(ValueError, match=r"anchor='l_s' is not known; allowed are 'principled', 'plain'"):
        Coca(anchor="l_s")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"principle='be good' .* must contain \{question\}"):
        Coca(principle="be good")


def test_a_prompt_without_room_is_named_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model_runs(monkeypatch, tiny)
    with pytest.raises(ValueError, match=r"prompt 'wide' has 1.. tokens, which leaves room for"):
        Coca(principle=PRINCIPLE).respond(tiny, [Prompt(id="wide", text="sun " * 110)], settings=SETTINGS)


def test_fingerprints_see_all_that_an_answer_depends_on() -> None:
    defences = [Coca(), Coca(alpha=1.0), Coca(principle=PRINCIPLE), Coca(anchor="plain"), Undefended()]
    assert len({defence.fingerprint for defence in defences}) == len(defences)
    assert Coca().fingerprint == Coca(alpha=4.0).fingerprint
