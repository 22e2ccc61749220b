"""Prompts → tensors: chat template, pictures, left padding, and an answer to be forced.

    row i:   pad … pad  <user> <image>×k words … <assistant>  [answer … end]
             └─ left padding, so that the last prompt token of every row stands in one column

Pictures and clips come before the words in the user's turn. Rows with and without pictures may stand
in one batch; `batches` keeps kinds apart all the same, because rows of one kind are of similar
length, and because not every family's processor can mix them.

Measured on the shipped organism's sizes: 0.05 ms a text, 0.1 ms a clip, 0.35 ms a picture on one
core, all pictures of a batch going through the image processor in one call.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from autosteer_lib.arguments import check_whole
from autosteer_lib.families import ONE_KIND_OF_SIGHT
from autosteer_lib.forced_answer import answer_ids as ids_of_answer
from autosteer_lib.forced_answer import separator
from autosteer_lib.halving import Failure, Halving
from autosteer_lib.models import MLLM, check_mllm, quiet_transformers
from autosteer_lib.prompts import (
    Prompt,
    check_pictures_exist,
    clip_shapes,
    open_images,
    open_videos,
    prompts_of,
)

T = TypeVar("T")

FRAMES_PER_SECOND = 2.0  # of a clip, which has no times of its own: as many as Qwen and Molmo2 sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """One batch on the model's device. Nothing consumes it: use it for any number of defences."""

    prompts: tuple[Prompt, ...]
    """In row order."""
    inputs: dict[str, Tensor]
    """Keyword arguments of the model's forward: input_ids, attention_mask, pixel_values, …"""
    lengths: tuple[int, ...]
    """Prompt tokens of each row, without padding and without the answer."""
    answer_ids: tuple[int, ...] = ()
    """Token ids of the forced answer, the same for every row; empty where there is none."""

    @property
    def answer_tokens(self) -> int:
        """How many columns at the right belong to the forced answer."""
        return len(self.answer_ids)


def encode(mllm: MLLM, prompts: Sequence[Prompt], *, answer: str | None = None) -> Encoded:
    """Encode prompts as one left-padded batch.

    Args:
        mllm: the model whose template, processor and device are used.
        prompts: at least one.
        answer: forced after every prompt, closed by the end of the turn so that a head which is
            trained on it learns to stop too. If the template was told to leave out the assistant's
            header, the answer starts with that header, as the model's own would.

    Raises:
        TypeError: a model, prompts or an answer that are none.
        ValueError: no prompts, a picture or film that cannot be read, pictures or clips for a family that
            sees none, clips of different shape in one batch, words that contain a picture's placeholder,
            or a prompt that is too long; names the prompt.
    """
    prompts = check_prompts(mllm, prompts)
    if not prompts:
        raise ValueError("nothing to encode: prompts is empty; give at least one")
    _check_one_kind(mllm, prompts)
    clips = [open_videos(prompt) for prompt in prompts]  # each film is decoded once a batch
    _check_clips(prompts, clips)
    conversations = [_conversation(prompt, shown) for prompt, shown in zip(prompts, clips, strict=True)]
    batch = _process(mllm, prompts, conversations, clips=[clip for shown in clips for clip in shown])
    inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    lengths = tuple(inputs["attention_mask"].sum(dim=1).tolist())
    answer_ids = () if answer is None else ids_of_answer(mllm, answer)
    for prompt, length in zip(prompts, lengths, strict=True):
        if length + len(answer_ids) > mllm.context_length:
            forced = f" and {len(answer_ids)} of the forced answer" if answer_ids else ""
            raise ValueError(
                f"prompt {prompt.id!r} has {length} tokens{forced}, more than the "
                f"{mllm.context_length} of {mllm.name}'s context; shorten its text or give it fewer "
                "or smaller pictures"
            )
    if answer_ids:
        inputs = _append(inputs, answer_ids)
    return Encoded(
        prompts=tuple(prompts),
        inputs={key: _place(mllm, value) for key, value in inputs.items()},
        lengths=lengths,
        answer_ids=answer_ids,
    )


def check_prompts(mllm: MLLM, prompts: Sequence[Prompt], *, name: str = "prompts") -> tuple[Prompt, ...]:
    """The prompts, all held against the model before any of them is encoded; no picture is opened.

    Args:
        mllm: the model that they are for.
        prompts: any number.
        name: of the argument, for messages.

    Raises:
        TypeError: no model, or no list of prompts.
        ValueError: a prompt that shows what the model does not see, whose words contain a placeholder, or whose
            picture file does not exist; names it.
    """
    check_mllm(mllm)
    found = prompts_of(prompts, name=name)
    marks = sight_marks(mllm)
    for prompt in found:
        _check_words(prompt, marks=marks)
        _check_seen(mllm, prompt)
        check_pictures_exist(prompt)
    return found


def batches(
    mllm: MLLM, prompts: Sequence[Prompt], *, batch_size: int, answer: str | None = None
) -> Iterator[tuple[list[int], Encoded]]:
    """Encode prompts in batches of like kind and length, lazily.

    Yields:
        Indices into `prompts`, in row order, and the batch. Each prompt comes exactly once. The
        order depends on nothing but the prompts.
    """
    for rows in batch_rows(mllm, prompts, batch_size=batch_size):
        yield rows, encode(mllm, [prompts[index] for index in rows], answer=answer)


def over_batches(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    run: Callable[[Encoded], Sequence[T]],
    *,
    batch_size: int,
    answer: str | None = None,
) -> Iterator[tuple[list[int], list[T]]]:
    """Run something on the batches of `batches`; one that does not fit into memory is halved, and later ones are as small.

    Args:
        mllm: the model that they are for.
        prompts: any number.
        run: gives one result a row, in row order; for each half it is called anew.
        batch_size: rows of a batch, where they fit.
        answer: forced after every prompt.

    Yields:
        Indices into `prompts`, and what came of them. Each prompt comes exactly once.

    Raises:
        MemoryError: a prompt that does not fit even alone; names it.
    """
    halving = Halving(only_memory=True)

    def part(rows: list[int]) -> Sequence[T]:
        return run(encode(mllm, [prompts[row] for row in rows], answer=answer))

    for rows in batch_rows(mllm, prompts, batch_size=batch_size):
        results: list[T] = []
        for outcome in halving(part, rows):
            if isinstance(outcome.result, Failure):
                raise MemoryError(
                    f"prompt {prompts[outcome.row].id!r} does not fit into memory beside {mllm.name}, not even alone "
                    f"({outcome.result.error}); give it fewer or smaller pictures, or take a device with more memory"
                )
            results.append(outcome.result)
        yield rows, results


def batch_rows(mllm: MLLM, prompts: Sequence[Prompt], *, batch_size: int) -> Iterator[list[int]]:
    """Which prompts share a batch: indices of like kind and length, each exactly once."""
    check_batch_size(batch_size)
    if not prompts:
        return
    by_kind: dict[tuple[object, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_kind.setdefault(_kind(prompt), []).append(index)
    with mllm.lock:
        words = [len(ids) for ids in mllm.tokenizer([prompt.text for prompt in prompts]).input_ids]
    for indices in by_kind.values():
        indices.sort(key=lambda index: (words[index], index))
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def check_batch_size(batch_size: int) -> None:
    """Check that a batch holds something.

    Raises:
        TypeError, ValueError: no whole number, or below 1.
    """
    check_whole(batch_size=batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; give at least 1")


def visual_token_ids(mllm: MLLM) -> tuple[int, ...]:
    """Ids of the tokens that stand for pictures and frames, with the marks that the processor counts to them."""
    processor = mllm.processor
    ids = [*processor.image_token_ids, *processor.video_token_ids]
    return tuple(sorted({int(token) for token in ids if token is not None}))


def sight_marks(mllm: MLLM) -> tuple[str, ...]:
    """The placeholders of pictures and clips as they are written; no text of a prompt may contain one."""
    placeholders: list[str] = mllm.tokenizer.convert_ids_to_tokens(visual_token_ids(mllm))
    return tuple(dict.fromkeys([*mllm.processor.all_special_multimodal_tokens, *placeholders]))


def _process(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    conversations: list[list[dict[str, Any]]],
    *,
    clips: Sequence[np.ndarray],
) -> Any:
    options: dict[str, Any] = {"padding": True, "padding_side": "left"}
    if clips:
        options |= {"do_sample_frames": False, "video_metadata": [_metadata(clip) for clip in clips]}
    if separator(mllm):
        options["return_for_text_completion"] = not mllm.add_generation_prompt
    try:
        with mllm.lock, quiet_transformers():  # a tokenizer, too, is told how to pad before each batch
            return mllm.processor.apply_chat_template(
                conversations,
                # Named, because one processor has another template of its own for clips.
                chat_template=mllm.processor.chat_template,
                add_generation_prompt=mllm.add_generation_prompt,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=options,
                **mllm.template_options,
            )
    except ValueError as error:
        names = ", ".join(repr(prompt.id) for prompt in prompts)
        raise ValueError(
            f"{type(mllm.processor).__name__} of {mllm.family} cannot encode the prompts {names} ({error}); "
            "encode them one by one to see which, and change the size or number of what it shows"
        ) from error


def _metadata(clip: np.ndarray) -> dict[str, Any]:
    frames = len(clip)
    return {
        "total_num_frames": frames,
        "fps": FRAMES_PER_SECOND,
        "duration": frames / FRAMES_PER_SECOND,
        "frames_indices": list(range(frames)),
    }


def _conversation(prompt: Prompt, clips: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in open_images(prompt)]
    content += [{"type": "video", "video": clip} for clip in clips]
    content.append({"type": "text", "text": prompt.text})
    return [{"role": "user", "content": content}]


def _kind(prompt: Prompt) -> tuple[object, ...]:
    # Clips of one batch must have one shape: the video processor stacks them.
    return len(prompt.images), clip_shapes(prompt)


def _check_words(prompt: Prompt, *, marks: Sequence[str]) -> None:
    for token in marks:
        if token in prompt.text:
            raise ValueError(
                f"prompt {prompt.id!r}: its text contains {token!r}, the placeholder of a picture or "
                "clip; leave it out, images= and videos= place their own"
            )


def _check_seen(mllm: MLLM, prompt: Prompt) -> None:
    if prompt.images and not mllm.sees_images:
        raise ValueError(
            f"prompt {prompt.id!r} has a picture, and {mllm.name} of the family {mllm.family} sees none: "
            f"its {type(mllm.processor).__name__} has no image processor; leave images= out, or load a "
            "model that sees pictures"
        )
    if prompt.videos and not mllm.sees_videos:
        raise ValueError(
            f"prompt {prompt.id!r} has a clip, and {mllm.name} of the family {mllm.family} sees none: "
            f"its {type(mllm.processor).__name__} has no video processor; give frames of it as images=, "
            "or load a family with video"
        )
    why = ONE_KIND_OF_SIGHT.get(mllm.model.config.model_type)
    if why is not None and prompt.images and prompt.videos:
        raise ValueError(
            f"prompt {prompt.id!r} has a picture and a clip, and {mllm.family} takes one kind at a time: "
            f"{why}; leave one out"
        )


def _check_one_kind(mllm: MLLM, prompts: Sequence[Prompt]) -> None:
    why = ONE_KIND_OF_SIGHT.get(mllm.model.config.model_type)
    if (
        why is not None
        and any(prompt.images for prompt in prompts)
        and any(prompt.videos for prompt in prompts)
    ):
        raise ValueError(
            f"pictures and clips cannot share a batch of {mllm.family}: {why}; use batches(), which keeps "
            "them apart"
        )


def _check_clips(prompts: Sequence[Prompt], clips: Sequence[Sequence[np.ndarray]]) -> None:
    shapes = {clip.shape: prompt.id for prompt, shown in zip(prompts, clips, strict=True) for clip in shown}
    if len({shape[0] for shape in shapes}) > 1:
        found = ", ".join(f"{shape[0]} frames in {name!r}" for shape, name in shapes.items())
        raise ValueError(
            f"clips of different length cannot share a batch ({found}); use batches(), which keeps them apart"
        )


def _append(inputs: dict[str, Tensor], answer_ids: tuple[int, ...]) -> dict[str, Tensor]:
    shape = inputs["input_ids"].shape
    answer = torch.tensor(answer_ids).expand(shape[0], -1)
    columns = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
    # Other per-token inputs are types of tokens (token_type_ids, …), in which words are 0.
    return {
        key: torch.cat([value, columns.get(key, torch.zeros_like(answer)).to(value)], dim=1)
        if value.shape == shape
        else value
        for key, value in inputs.items()
    }


def _place(mllm: MLLM, value: Tensor) -> Tensor:
    return value.to(mllm.device, mllm.dtype if value.is_floating_point() else None)
