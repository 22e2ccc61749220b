"""States at the last tokens, and means over a prompt or over a forced answer, against the model's own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.encoding import encode
from autosteer_lib.models import MLLM
from autosteer_lib.pooled_states import last_states, masked_mean, mean_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post, resid_pre

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
SITES = [resid_pre(2), resid_post(3)]


def hidden_of(mllm: MLLM, prompt: Prompt, *, answer: str | None = None) -> Tensor:
    """Input of block 2 for every token of one prompt, as transformers says it."""
    encoded = encode(mllm, [prompt], answer=answer)
    with torch.no_grad():
        output = mllm.model(**encoded.inputs, output_hidden_states=True, use_cache=False)
    return output.hidden_states[2][0]


def test_means_leave_padding_out(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    means = mean_states(tiny, mixed_prompts, sites=SITES)
    expected = torch.stack([hidden_of(tiny, prompt).mean(0) for prompt in mixed_prompts])
    torch.testing.assert_close(means[:, 0], expected, **CLOSE)
    torch.testing.assert_close(mean_states(tiny, mixed_prompts, sites=SITES, batch_size=2), means, **CLOSE)


def test_means_over_an_answer_are_over_its_tokens_alone(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    answer = "sorry cannot help"
    means = mean_states(tiny, mixed_prompts[:3], sites=SITES, answer=answer)
    for row, prompt in enumerate(mixed_prompts[:3]):
        hidden = hidden_of(tiny, prompt, answer=answer)
        torch.testing.assert_close(
            means[row, 0], hidden[-4:].mean(0), **CLOSE
        )  # three words and the turn's end


def test_last_states_are_those_of_the_last_tokens(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    states = last_states(tiny, mixed_prompts, sites=SITES, tokens=3, batch_size=3)
    for row, prompt in enumerate(mixed_prompts):
        torch.testing.assert_close(states[row, 0], hidden_of(tiny, prompt)[-3:], **CLOSE)
    torch.testing.assert_close(states[:, :, -1], collect(tiny, mixed_prompts, sites=SITES), **CLOSE)


def test_what_is_not_counted_is_not_looked_at() -> None:
    hidden = torch.tensor([[[float("nan")], [1.0], [3.0]], [[4.0], [5.0], [6.0]]])
    counted = torch.tensor([[False, True, True], [True, True, True]])
    assert masked_mean(hidden, counted).tolist() == [[2.0], [5.0]]


def test_what_cannot_be_read(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match="0 prompts and 2 sites"):
        mean_states(tiny, [], sites=SITES)
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        mean_states(tiny, mixed_prompts, sites=[resid_pre(9)])
    with pytest.raises(ValueError, match="the last 9 tokens were asked for and a prompt has 5"):
        last_states(tiny, mixed_prompts[:1], sites=SITES, tokens=9)
    with pytest.raises(ValueError, match="tokens = 0"):
        last_states(tiny, mixed_prompts, sites=SITES, tokens=0)
