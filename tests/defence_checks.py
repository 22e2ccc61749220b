"""What every steering defence must hold, whatever it does: checks that the tests of single defences share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.defences import SteeringDefence
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings, Response, Steering, generate
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site, attach, logits
from tests.mars_on_tiny import SETTINGS, hooks_on

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
ORACLE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


class Seen:
    """A steering under observation: the logits of each step, and which of its hooks are there."""

    def __init__(self, inner: Steering | None, *, fails: bool = False) -> None:
        self.inner, self.fails = inner, fails
        self.logits: list[Tensor] = []
        self.sites: list[set[Site]] = []
        self.attachment: Attachment | None = None
        self.gate_score: Tensor | None = None
        self.triggered: Tensor | None = None

    def edits(self) -> Mapping[Site, Edit]:
        return {**({} if self.inner is None else self.inner.edits()), logits(): self.read}

    def bind(self, attachment: Attachment) -> None:
        self.attachment = attachment
        if self.inner is not None:
            self.inner.bind(attachment)

    def read(self, hidden: Tensor) -> None:
        assert self.attachment is not None
        if self.fails:
            raise KeyError("inside a pass")
        if self.inner is not None:
            self.gate_score, self.triggered = self.inner.gate_score, self.inner.triggered
        self.logits.append(hidden[:, -1].clone())
        self.sites.append(set(self.attachment.sites) - {logits()})


def see(
    mllm: MLLM,
    defence: SteeringDefence | None,
    encoded: Encoded,
    *,
    settings: GenerationSettings = SETTINGS,
    fails: bool = False,
) -> tuple[Seen, list[Response]]:
    """Answer under observation; without a defence, the plain model."""
    seen = Seen(None if defence is None else defence.steering(mllm, encoded), fails=fails)
    return seen, generate(mllm, encoded, settings=settings, steering=seen)


Oracle = Callable[[int], Mapping[Site, Edit]]
"""(tokens of the prompt) → edits of one pass over prompt and answer so far."""


def check_against_oracle(
    mllm: MLLM, defence: SteeringDefence, encoded: Encoded, oracle: Oracle
) -> list[Response]:
    """Each cached step is a pass without a cache over prompt and answer, edited by formulas written out."""
    seen, responses = see(mllm, defence, encoded)
    inputs = dict(encoded.inputs)
    width = inputs["input_ids"].shape[1]
    assert len(seen.logits) == SETTINGS.max_new_tokens
    for cached in seen.logits:
        assert not cached.requires_grad
        with torch.no_grad(), attach(mllm, oracle(width)):
            again = mllm.forward(inputs).logits[:, -1]
        torch.testing.assert_close(cached, again, **ORACLE)
        said = cached.argmax(dim=-1, keepdim=True)
        inputs["input_ids"] = torch.cat((inputs["input_ids"], said), dim=1)
        inputs["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(said)), dim=1)
    return responses


def check_rows(mllm: MLLM, defence: SteeringDefence, prompts: Sequence[Prompt]) -> None:
    """A row of a batch is answered as alone."""
    together, responses = see(mllm, defence, encode(mllm, prompts))
    for row, prompt in enumerate(prompts):
        alone, (response,) = see(mllm, defence, encode(mllm, [prompt]))
        for mine, of_batch in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(mine[0], of_batch[row], **CLOSE)
        assert (response.text, response.triggered) == (responses[row].text, responses[row].triggered)
        if response.gate_score is not None:
            assert response.gate_score == pytest.approx(responses[row].gate_score, rel=1e-4, abs=1e-5)


def check_steers_half_in_float32(half: MLLM, defence: FittedDefence, prompts: Sequence[Prompt]) -> None:
    """On a model in half precision: what was fitted and what the gate decides by stay in float32."""
    assert {tensor.dtype for tensor in defence._tensors().values()} == {torch.float32}
    encoded = encode(half, prompts)
    check_only_triggered_rows_change(half, defence, encoded)
    seen, _ = see(half, defence, encoded)
    assert seen.gate_score is not None
    assert seen.gate_score.dtype == torch.float32


def check_rows_alone_and_together(mllm: MLLM, defence: SteeringDefence, prompts: Sequence[Prompt]) -> None:
    """Only triggered rows change; a row alone, of words or with a sight, is steered as it is in the batch."""
    encoded = encode(mllm, prompts)
    check_only_triggered_rows_change(mllm, defence, encoded)
    seen, responses = see(mllm, defence, encoded)
    for row in (0, 2):
        alone, (response,) = see(mllm, defence, encode(mllm, prompts[row : row + 1]))
        torch.testing.assert_close(alone.logits[0][0], seen.logits[0][row], **ORACLE)
        assert response.triggered == responses[row].triggered


def check_only_triggered_rows_change(mllm: MLLM, defence: SteeringDefence, encoded: Encoded) -> None:
    """The others keep the plain model's logits bit for bit, at every step."""
    plain, _ = see(mllm, None, encoded)
    steered, responses = see(mllm, defence, encoded)
    opened = torch.tensor([bool(r.triggered) for r in responses])
    assert set(opened.tolist()) == {True, False}
    for with_gate, without in zip(steered.logits, plain.logits, strict=True):
        assert torch.equal(with_gate[~opened], without[~opened])
    assert (steered.logits[0] != plain.logits[0]).any(dim=-1)[opened].all()


def check_a_b_a(mllm: MLLM, defence: SteeringDefence, prompts: Sequence[Prompt]) -> None:
    """The answers to A come again after B, and after an error in the middle of a pass, which leaves no hook."""
    some, others = encode(mllm, prompts[:4]), encode(mllm, prompts[3:])
    before = hooks_on(mllm)
    first = _said(defence.answer(mllm, some, settings=SETTINGS))
    defence.answer(mllm, others, settings=SETTINGS)
    with pytest.raises(KeyError, match="inside a pass"):
        see(mllm, defence, others, fails=True)
    assert hooks_on(mllm) == before
    assert _said(defence.answer(mllm, some, settings=SETTINGS)) == first


def check_saved(mllm: MLLM, defence: Any, prompts: Sequence[Prompt], folder: Path) -> None:
    """Saved and loaded it is the same defence."""
    restored = type(defence).load(defence.save(folder), mllm)
    encoded = encode(mllm, prompts)
    before, after = (_said(d.answer(mllm, encoded, settings=SETTINGS)) for d in (defence, restored))
    assert after == before
    assert restored.fingerprint == defence.fingerprint
    assert restored.hyperparameters == defence.hyperparameters
    assert restored._values() == defence._values()


def check_its_model_alone(
    other: MLLM, defence: Any, prompts: Sequence[Prompt], folder: Path, *, unfitted: Any, own: MLLM
) -> None:
    """Another model is refused, and so is a defence that was never fitted."""
    with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
        defence.respond(other, prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match="fit the defence on this model"):
        type(defence).load(defence.save(folder), other)
    uses: list[Callable[[], object]] = [
        lambda: unfitted.respond(own, prompts, settings=SETTINGS),
        lambda: unfitted.save(folder),
        lambda: unfitted.fingerprint,
        lambda: unfitted.retuned(),
    ]
    for use in uses:
        with pytest.raises(NotFittedError, match=r"is not fitted; call fit\(.*, or \w+\.load"):
            use()


def check_order(mllm: MLLM, defence: SteeringDefence, prompts: Sequence[Prompt]) -> None:
    """Answers come in the order of the prompts, whatever the batches."""
    small = GenerationSettings(max_new_tokens=SETTINGS.max_new_tokens, batch_size=2)
    forward = defence.respond(mllm, prompts, settings=small)
    assert [r.prompt_id for r in forward] == [p.id for p in prompts]
    backward = defence.respond(mllm, list(prompts)[::-1], settings=small)
    assert [r.text for r in backward] == [r.text for r in forward][::-1]


def check_fingerprints(defences: Sequence[SteeringDefence]) -> None:
    """All differ."""
    assert len({defence.fingerprint for defence in defences}) == len(defences)


def check_everything(
    tiny: MLLM,
    other_tiny: MLLM,
    defence: Any,
    prompts: list[Prompt],
    folder: Path,
    *,
    unfitted: Any,
) -> None:
    """All that needs no knowledge of the defence."""
    check_rows(tiny, defence, prompts)
    check_a_b_a(tiny, defence, prompts)
    check_order(tiny, defence, prompts)
    check_saved(tiny, defence, prompts, folder / "saved")
    check_its_model_alone(other_tiny, defence, prompts, folder / "other", unfitted=unfitted, own=tiny)


def weights_of(mllm: MLLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in mllm.model.state_dict().items()}


def _said(responses: Sequence[Response]) -> list[tuple[object, ...]]:
    return [(r.prompt_id, r.text, r.gate_score, r.triggered, r.model_calls) for r in responses]
