"""Batched greedy generation, with or without the edits of a defence, and what each answer cost.

    prefill   all prompt tokens in one pass; a gate is decided here, at the last of them
    decode    one token a pass, with the keys and values of the past in a cache

A `Steering` is the state of ONE batch: a fresh one for each, so that no gate outlives its answer. Its
edits see the prefill first and each decoding step after that, through the same hooks. One that
finds in its prefill that no row needs it detaches them, and the rest of the batch runs on the plain
model.

A model that overflowed in half precision writes token 0 on and on, which reads like an answer and counts as one. So the
first logits are looked at, once a batch: they must be finite.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.arguments import check_given, check_whole, described
from autosteer_lib.encoding import Encoded, check_prompts, over_batches
from autosteer_lib.forced_answer import answer_header
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site, attach, logits


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How answers are decoded: always greedily, so that a run can be repeated."""

    max_new_tokens: int = 64
    """Longest answer in tokens, its end token included."""
    batch_size: int = 32
    """Prompts answered at once by `respond`."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size"):
            check_whole(**{name: getattr(self, name)})
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer and its price."""

    prompt_id: str
    text: str
    """Without special tokens."""
    new_tokens: int
    """Tokens generated in all calls, end tokens included."""
    prompt_tokens: int
    """Tokens read in all calls, padding left out."""
    gate_score: float | None = None
    """What the gate decided by: P(toxic), or a projection on a direction; None for a defence without a gate."""
    triggered: bool | None = None
    """Whether this answer was steered, or replaced; None for a defence without a gate."""
    raw_text: str | None = None
    """What the model answered before the defence looked at it; None where there is but one answer."""
    model_calls: int = 1
    """Generations spent on this answer, and passes that only read; defences that ask again have more."""
    seconds: float = 0.0
    """This answer's equal share of its batches' wall time, of all calls, encoding left out."""


@runtime_checkable
class Steering(Protocol):
    """The edits of ONE batch of answers. Make a fresh object for each batch."""

    gate_score: Float[Tensor, "batch"] | None
    """Set during the prefill by a gated defence, one number a row."""
    triggered: Bool[Tensor, "batch"] | None
    """Set with it: the rows that are steered."""

    def edits(self) -> Mapping[Site, Edit]:
        """What to run where; called once, before the prefill."""

    def bind(self, attachment: Attachment) -> None:
        """Called once the edits are attached; lets an edit detach itself or its siblings."""


@runtime_checkable
class OwnDecoding(Protocol):
    """A `Steering` that chooses the tokens too, and does not leave that to generate's greedy loop."""

    def decode(self, model: Any, input_ids: Int[Tensor, "batch tokens"], **prepared: Any) -> Any:
        """Prompts and answers, [batch, tokens], from all that `generate` hands to its `custom_generate`."""


def generate(
    mllm: MLLM,
    encoded: Encoded,
    *,
    settings: GenerationSettings,
    steering: Steering | None = None,
) -> list[Response]:
    """Answer one encoded batch.

    Args:
        mllm: the model that the batch was encoded for.
        encoded: prompts without a forced answer; left as it is.
        settings: length of the answers. `batch_size` is not read here: the batch is given.
        steering: the edits of this batch, None for the plain model.

    Returns:
        One response a row, in row order.

    Raises:
        ValueError: a forced answer in the batch, a prompt that leaves no room for the answer, or logits that are not finite.
    """
    _check_room(mllm, encoded, settings)
    with mllm.lock, ExitStack() as hooks:
        start = time.perf_counter()
        first = _FirstLogits(mllm, encoded)
        first.bind(hooks.enter_context(attach(mllm, {logits(): first.look})))
        if steering is not None:
            steering.bind(hooks.enter_context(attach(mllm, steering.edits())))
        # Greedy, with a growing cache: mllm.model.generation_config holds nothing else.
        tokens = mllm.model.generate(
            **encoded.inputs,
            max_new_tokens=settings.max_new_tokens,
            custom_generate=steering.decode if isinstance(steering, OwnDecoding) else None,
        )
        assert isinstance(tokens, Tensor)
        # The copy to the host waits for the device, so the time taken after it is the true one.
        answers = tokens[:, encoded.inputs["input_ids"].shape[1] :].cpu()
        seconds = (time.perf_counter() - start) / len(encoded.prompts)
    scores = _per_row(None if steering is None else steering.gate_score, rows=len(answers))
    triggered = _per_row(None if steering is None else steering.triggered, rows=len(answers))
    counts = _new_tokens(answers, ends=mllm.model.generation_config.eos_token_id)
    return [
        Response(
            prompt_id=prompt.id,
            text=text,
            new_tokens=counts[row],
            prompt_tokens=encoded.lengths[row],
            gate_score=None if scores[row] is None else float(scores[row]),
            triggered=None if triggered[row] is None else bool(triggered[row]),
            seconds=seconds,
        )
        for row, (prompt, text) in enumerate(zip(encoded.prompts, _texts(mllm, answers), strict=True))
    ]


def respond(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    settings: GenerationSettings,
    steering: Callable[[Encoded], Steering | None] | None = None,
    progress: bool = False,
) -> list[Response]:
    """Answer any number of prompts, in batches.

    Args:
        mllm: the model.
        prompts: in any order; they are batched by kind and length inside.
        settings: length of the answers and size of the batches.
        steering: makes the edits of a batch that it is shown; called once for each, and for each half of one that
            did not fit. None from it leaves that batch to the plain model.
        progress: show a bar.

    Returns:
        One response a prompt, in the prompts' order.

    Raises:
        TypeError, ValueError: see `check_call`; and a steering that cannot be called.
    """
    prompts = check_call(mllm, prompts, settings=settings)
    if steering is not None and not callable(steering):
        raise TypeError(
            f"steering is {described(steering)}; give a function that makes the edits of a batch, as "
            "partial(defence.steering, mllm), or call defence.respond"
        )
    responses: dict[int, Response] = {}

    def answered(encoded: Encoded) -> list[Response]:
        made = steering(encoded) if steering else None
        return generate(mllm, encoded, settings=settings, steering=made)

    with tqdm(total=len(prompts), desc="answers", disable=not progress) as bar:
        for rows, answers in over_batches(mllm, prompts, answered, batch_size=settings.batch_size):
            responses.update(zip(rows, answers, strict=True))
            bar.update(len(rows))
    return [responses[index] for index in range(len(prompts))]


def check_call(mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings) -> tuple[Prompt, ...]:
    """The prompts, once all that can be told before the first answer is in order.

    Raises:
        TypeError: a model, prompts or settings that are none.
        ValueError: a prompt that the model cannot be shown; see `encoding.check_prompts`.
    """
    check_given(settings, GenerationSettings, name="settings", remedy="GenerationSettings(max_new_tokens=…)")
    return check_prompts(mllm, prompts)


class _FirstLogits:
    """Looks at what the prefill leads to and is gone: decoding costs no more for it."""

    def __init__(self, mllm: MLLM, encoded: Encoded) -> None:
        self._mllm, self._prompts = mllm, encoded.prompts
        self._attachment: Attachment | None = None

    def bind(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def look(self, found: Float[Tensor, "rows tokens vocabulary"]) -> None:
        assert self._attachment is not None
        self._attachment.detach(logits())
        finite = found[:, -1].isfinite().all(dim=-1)
        if finite.all():
            return
        # Two streams in one batch have their rows one after the other.
        broken = {row % len(self._prompts) for row in (~finite).nonzero().flatten().tolist()}
        names = ", ".join(repr(self._prompts[row].id) for row in sorted(broken)[:3])
        raise ValueError(
            f"{self._mllm.name} gives logits that are not finite (NaN or infinite) in {self._mllm.dtype} for "
            f"{len(broken)} of {len(self._prompts)} prompts ({names}); its answers would be noise: load it with "
            "dtype='bfloat16' or 'float32'"
        )


def _check_room(mllm: MLLM, encoded: Encoded, settings: GenerationSettings) -> None:
    if encoded.answer_tokens:
        raise ValueError(
            f"this batch holds a forced answer of {encoded.answer_tokens} tokens; encode it without "
            "answer= to generate"
        )
    for prompt, length in zip(encoded.prompts, encoded.lengths, strict=True):
        if length + settings.max_new_tokens > mllm.context_length:
            raise ValueError(
                f"prompt {prompt.id!r} has {length} tokens, which leaves room for "
                f"{mllm.context_length - length} of the {settings.max_new_tokens} that "
                f"max_new_tokens asks for in {mllm.name}'s context of {mllm.context_length}; lower "
                "max_new_tokens or shorten the prompt"
            )


def _per_row(values: Tensor | None, *, rows: int) -> list[Any]:
    if values is None:
        return [None] * rows
    if values.shape != (rows,):
        raise ValueError(
            f"the steering set gate values of shape {list(values.shape)} for a batch of {rows}; it "
            "must set one a row, and must not be used for two batches"
        )
    return values.detach().cpu().tolist()


def _new_tokens(answers: Tensor, *, ends: int | list[int]) -> list[int]:
    """Tokens up to the first end token, with it; what follows is padding."""
    length = answers.shape[1]
    is_end = torch.isin(answers, torch.tensor(ends))
    first = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1) + 1, length)
    counted: list[int] = first.tolist()
    return counted


def _texts(mllm: MLLM, answers: Tensor) -> list[str]:
    texts: list[str] = mllm.tokenizer.batch_decode(answers, skip_special_tokens=True)
    if mllm.add_generation_prompt:
        return texts
    # Without the header in its prompt the model writes it itself; it is no part of the answer.
    header = mllm.tokenizer(answer_header(mllm), add_special_tokens=False).input_ids
    spoken = mllm.tokenizer.decode(header, skip_special_tokens=True).strip()
    return [text.lstrip().removeprefix(spoken).lstrip() for text in texts]
