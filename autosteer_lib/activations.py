"""States of N prompts at chosen sites, streamed through the model and kept on disk by content.

    collect         h[site, last prompt token]                    one vector a prompt and site
    answer_states   h[final_norm, t], each with the token t + 1 of a forced answer that it predicts

Only the tokens asked for are kept: memory is prompts × sites × dim, whatever the length of the
prompts. No cache of keys and values is built, and logits are computed for one token. A batch that does not fit is halved.

A frozen model's states never change, so they are computed once and stored under a key that holds
all they depend on (tensor_cache.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.encoding import (
    Encoded,
    check_batch_size,
    check_prompts,
    over_batches,
    visual_token_ids,
)
from autosteer_lib.forced_answer import check_answer
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, Site, attach, check_sites, final_norm
from autosteer_lib.tensor_cache import TensorCache


def collect(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Site],
    batch_size: int = 32,
    cache: Path | None = None,
    progress: bool = False,
) -> Float[Tensor, "prompts sites dim"]:
    """The state of each prompt's last token at each site, as float32 on the CPU.

    Args:
        mllm: the model, which is not changed.
        prompts: at least one.
        sites: at least one; `logits()` cannot be mixed with the others, being of another width.
        batch_size: prompts a pass.
        cache: folder to keep the result in, and to take it from when all is as it was.
        progress: show a bar.

    Raises:
        TypeError: no list of prompts or of sites.
        ValueError: a prompt that the model cannot be shown, a site that does not exist, or a state that is not finite
            (names prompt, site).
    """
    prompts = check_prompts(mllm, prompts)
    check_batch_size(batch_size)
    check_sites(mllm, sites=sites)
    if not prompts or not sites:
        raise ValueError(
            f"nothing to collect: {len(prompts)} prompts and {len(sites)} sites; give at least one of each"
        )
    if len({site.kind == "logits" for site in sites}) > 1:
        raise ValueError(
            f"sites {', '.join(map(str, sites))} differ in width: logits has one number a token of "
            "the vocabulary; collect it in a call of its own"
        )

    def compute() -> dict[str, Tensor]:
        read: dict[int, Tensor] = {}
        with tqdm(total=len(prompts), desc="states", disable=not progress) as bar:
            last = partial(_read_last, mllm, sites=sites)
            for rows, states in over_batches(mllm, prompts, last, batch_size=batch_size):
                read.update(zip(rows, states, strict=True))
                bar.update(len(rows))
        return {"states": torch.stack([read[index] for index in range(len(prompts))])}

    arguments = {"sites": [str(site) for site in sites], "batch_size": batch_size}
    return TensorCache(cache).get(
        "collect", mllm=mllm, prompts=prompts, arguments=arguments, compute=compute
    )["states"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AnswerStates:
    """States of the last norm, each with the token that it is to predict; on the CPU."""

    states: Float[Tensor, "tokens dim"]
    """float32."""
    targets: Int[Tensor, "tokens"]
    """Token ids."""
    rows: Int[Tensor, "tokens"]
    """Index of the prompt that each state comes from: ascending, its tokens in reading order."""


def answer_states(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    answer: str,
    batch_size: int = 32,
    cache: Path | None = None,
    include_question: bool = False,
    progress: bool = False,
) -> AnswerStates:
    """The states that predict each token of one fixed answer, forced after every prompt.

    Args:
        mllm: the model, which is not changed.
        prompts: at least one.
        answer: the words; the end of the turn is added as their last target (encoding.encode).
        batch_size: prompts a pass.
        cache: folder to keep the result in.
        include_question: also the states that predict what follows the last picture token of the
            prompt, the user's words among it, as AutoSteer's code supervises them. In a prompt
            without a picture that is all but the first token, which nothing predicts.
        progress: show a bar.

    Raises:
        TypeError: no list of prompts, or an answer that is no string.
        ValueError: no prompts, one that the model cannot be shown, an empty answer, or a state that is not finite
            (names the prompt).
    """
    prompts = check_prompts(mllm, prompts)
    check_answer(answer)
    check_batch_size(batch_size)
    if not prompts:
        raise ValueError("nothing to collect: prompts is empty; give at least one")

    def compute() -> dict[str, Tensor]:
        read: dict[int, tuple[Tensor, Tensor]] = {}
        with tqdm(total=len(prompts), desc="answer states", disable=not progress) as bar:
            of_answer = partial(_read_answer, mllm, include_question=include_question)
            for rows, found in over_batches(mllm, prompts, of_answer, batch_size=batch_size, answer=answer):
                read.update(zip(rows, found, strict=True))
                bar.update(len(rows))
        states, targets = zip(*(read[index] for index in range(len(prompts))), strict=True)
        counts = torch.tensor([len(row) for row in targets])
        return {
            "states": torch.cat(states),
            "targets": torch.cat(targets),
            "rows": torch.arange(len(prompts)).repeat_interleave(counts),
        }

    arguments = {
        "answer": answer,
        "batch_size": batch_size,
        "include_question": include_question,
    }
    return AnswerStates(
        **TensorCache(cache).get(
            "answer_states", mllm=mllm, prompts=prompts, arguments=arguments, compute=compute
        )
    )


@torch.no_grad()
def _read_last(mllm: MLLM, encoded: Encoded, *, sites: Sequence[Site]) -> list[Float[Tensor, "sites dim"]]:
    read: dict[Site, Tensor] = {}

    def reader(site: Site) -> Edit:
        def edit(hidden: Tensor) -> None:
            # A copy: a view would keep the states of all tokens alive until the pass ends.
            read[site] = hidden[:, -1].to(mllm.device, torch.float32, copy=True)

        return edit

    with mllm.lock, attach(mllm, {site: reader(site) for site in sites}):
        mllm.forward(encoded.inputs)
    states = torch.stack([read[site] for site in sites], dim=1).cpu()
    broken = (~states.isfinite().all(dim=-1)).nonzero()
    if len(broken):
        row, site = broken[0].tolist()
        raise _not_finite(mllm, encoded.prompts[row], sites[site])
    return list(states)


@torch.no_grad()
def _read_answer(
    mllm: MLLM, encoded: Encoded, *, include_question: bool
) -> list[tuple[Float[Tensor, "tokens dim"], Int[Tensor, "tokens"]]]:
    tokens = encoded.inputs["input_ids"].cpu()
    first = _first_targets(mllm, encoded, tokens, include_question=include_question)
    start = min(first)
    read: list[Tensor] = []

    def edit(hidden: Tensor) -> None:
        # The state before each target predicts it; the last state predicts nothing here.
        read.append(hidden[:, start - 1 : -1].to("cpu", torch.float32, copy=True))

    with mllm.lock, attach(mllm, {final_norm(): edit}):
        mllm.forward(encoded.inputs)
    (states,) = read
    found = []
    for row, column in enumerate(first):
        mine = states[row, column - start :]
        if not mine.isfinite().all():
            raise _not_finite(mllm, encoded.prompts[row], final_norm())
        found.append((mine.clone(), tokens[row, column:].clone()))
    return found


def _first_targets(
    mllm: MLLM, encoded: Encoded, tokens: Int[Tensor, "batch tokens"], *, include_question: bool
) -> list[int]:
    """Column of the first token of each row that a kept state predicts."""
    width = tokens.shape[1]
    if not include_question:
        return [width - encoded.answer_tokens] * len(tokens)
    visual = torch.isin(tokens, torch.tensor(visual_token_ids(mllm)))
    after_visual = (visual * torch.arange(1, width + 1)).amax(dim=1).tolist()
    return [
        after or width - length - encoded.answer_tokens + 1
        for after, length in zip(after_visual, encoded.lengths, strict=True)
    ]


def _not_finite(mllm: MLLM, prompt: Prompt, site: Site) -> ValueError:
    return ValueError(
        f"prompt {prompt.id!r} has a state at {site} of {mllm.name} that is not finite (NaN or "
        f"infinite) in {mllm.dtype}; load the model with dtype='bfloat16' or 'float32', or look for "
        "broken weights"
    )
