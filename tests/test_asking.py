"""What defences share that ask again: templates, requests with other words, the bill, one look at a state."""

import pytest
import torch

from autosteer_lib.activations import collect
from autosteer_lib.defences.asking import (
    charged,
    check_template,
    fill,
    in_words,
    look,
    reworded,
)
from autosteer_lib.generation import Response
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from tests.planted import bill


def test_templates_say_what_they_lack() -> None:
    check_template("check", "{question} {answer} {{literally}}", needs=("question", "answer"))
    check_template("shown", "{answer}", needs=("answer",), may=("question",))
    with pytest.raises(
        ValueError, match=r"check='\{question\} \?' has .*\['question'\]; it must contain .*\{answer\}"
    ):
        check_template("check", "{question} ?", needs=("question", "answer"))
    with pytest.raises(ValueError, match=r"has the placeholders \['answer', 'query'\]"):
        check_template("shown", "{query} {answer}", needs=("answer",), may=("question",))
    with pytest.raises(ValueError, match=r"no other"):
        check_template("shown", "{} {answer}", needs=("answer",))
    with pytest.raises(ValueError, match="write a literal brace twice"):
        check_template("shown", "{answer", needs=("answer",))


def test_words_are_put_in_as_they_are(tiny: MLLM) -> None:
    """Braces of a user's text are text, and a picture that a model writes is none."""
    asked = fill(
        tiny, "{question} : {answer}", question="what is {answer} ?", answer="{question} <image> sun"
    )
    assert asked == "what is {answer} ? : {question}   sun"


def test_other_words_keep_or_drop_what_is_shown(mixed_prompts: list[Prompt]) -> None:
    both = mixed_prompts[-1]
    seen, unseen = reworded(both, "sun"), in_words(both, "sun")
    assert (seen.id, seen.text, seen.visual_fingerprint) == (both.id, "sun", both.visual_fingerprint)
    assert (unseen.id, unseen.text, unseen.images, unseen.videos) == (both.id, "sun", (), ())
    assert both.text == "describe"


def test_a_bill_is_the_sum_of_its_calls() -> None:
    calls = [
        Response(
            prompt_id="a", text=str(k), new_tokens=k, prompt_tokens=10 * k, model_calls=k, seconds=0.5 * k
        )
        for k in (1, 2, 4)
    ]
    answer = charged(*calls, triggered=True, raw_text="raw")
    assert bill(answer) == (7, 7, 70, 3.5)
    assert (answer.text, answer.triggered, answer.raw_text, answer.gate_score) == ("1", True, "raw", None)


def test_a_look_reads_the_last_token_and_writes_nothing(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    site = resid_post(2)
    states = collect(tiny, mixed_prompts, sites=[site])[:, 0]
    expected = states[:, 3]
    threshold = float(expected.median())
    before = [len(block._forward_hooks) for block in tiny.blocks]
    found = look(tiny, mixed_prompts, site=site, score=lambda h: h[:, 3], threshold=threshold, batch_size=2)
    assert [r.gate_score for r in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [r.triggered for r in found] == (expected > threshold).tolist()
    assert [r.prompt_id for r in found] == [prompt.id for prompt in mixed_prompts]
    assert {(r.text, r.new_tokens, r.model_calls) for r in found} == {("", 0, 1)}
    assert all(r.prompt_tokens > 0 and r.seconds > 0 for r in found)
    assert [len(block._forward_hooks) for block in tiny.blocks] == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_decides_nothing(
    tiny: MLLM, mixed_prompts: list[Prompt], value: float
) -> None:
    with pytest.raises(ValueError, match=r"score of prompt 'short' at resid_post\(2\) of tiny is (nan|inf)"):
        look(
            tiny,
            mixed_prompts[:1],
            site=resid_post(2),
            score=lambda h: torch.full((len(h),), value),
            threshold=0.0,
            batch_size=2,
        )
