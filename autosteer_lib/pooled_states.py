"""States of prompts at more than their last token: the last few, or the mean over all of them or over a forced answer.

    last_states   h[site, −n … −1]                          the tokens that a template puts after the words
    mean_states   mean over the prompt's tokens of h[site]    without padding, pictures included
                  mean over the answer's tokens               where an answer is forced

The same states that `activations.collect` reads, at the same sites; nothing is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.encoding import Encoded, over_batches
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, Site, attach, check_sites

Pool: TypeAlias = Callable[[Tensor], Tensor]
"""[batch, tokens, dim] → [batch, …, dim]."""


def last_states(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Site],
    tokens: int,
    batch_size: int = 32,
    progress: bool = False,
) -> Float[Tensor, "prompts sites tokens dim"]:
    """The states of each prompt's last tokens at each site, in reading order, as float32 on the CPU.

    Raises:
        ValueError: no prompts, a site that does not exist, a prompt that has fewer tokens, or states that are
            not finite.
    """
    if tokens < 1:
        raise ValueError(f"tokens = {tokens}; give at least 1")

    def pools(encoded: Encoded) -> Pool:
        shortest = min(encoded.lengths)
        if shortest < tokens:
            raise ValueError(
                f"the last {tokens} tokens were asked for and a prompt has {shortest}; ask for fewer"
            )
        return lambda hidden: hidden[:, -tokens:]

    return _read(mllm, prompts, sites=sites, pools=pools, batch_size=batch_size, progress=progress)


def mean_states(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Site],
    answer: str | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Float[Tensor, "prompts sites dim"]:
    """The mean state of each prompt's tokens at each site, or of the tokens of one answer forced after it.

    Raises:
        ValueError: no prompts, an empty answer, a site that does not exist, or states that are not finite.
    """

    def pools(encoded: Encoded) -> Pool:
        counted = encoded.inputs["attention_mask"].bool()
        if answer is not None:
            counted = torch.zeros_like(counted)
            counted[:, -encoded.answer_tokens :] = True
        return lambda hidden: masked_mean(hidden.float(), counted)

    return _read(
        mllm, prompts, sites=sites, pools=pools, answer=answer, batch_size=batch_size, progress=progress
    )


def masked_mean(
    hidden: Float[Tensor, "batch tokens dim"], counted: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Mean over the counted tokens of each row; what stands in the others does not matter, nor is it looked at."""
    counted = counted.to(hidden.device).unsqueeze(-1)
    return torch.where(counted, hidden, 0.0).sum(1) / counted.sum(1)


@torch.no_grad()
def _read(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    sites: Sequence[Site],
    pools: Callable[[Encoded], Pool],
    answer: str | None = None,
    batch_size: int,
    progress: bool,
) -> Tensor:
    if not prompts or not sites:
        raise ValueError(
            f"nothing to read: {len(prompts)} prompts and {len(sites)} sites; give at least one of each"
        )
    check_sites(mllm, sites=sites)
    found: dict[int, Tensor] = {}

    def pooled(encoded: Encoded) -> list[Tensor]:
        read: dict[Site, Tensor] = {}
        edits = {site: _reader(read, site, pools(encoded)) for site in sites}
        with mllm.lock, attach(mllm, edits):
            mllm.forward(encoded.inputs)
        states = torch.stack([read[site] for site in sites], dim=1)
        broken = (~states.flatten(1).isfinite().all(dim=-1)).nonzero().flatten().tolist()
        if broken:
            raise ValueError(
                f"prompt {encoded.prompts[broken[0]].id!r} has states in {mllm.name} that are not finite (NaN or "
                f"infinite) in {mllm.dtype}; load the model with dtype='bfloat16' or 'float32'"
            )
        return list(states)

    with tqdm(total=len(prompts), desc="states", disable=not progress) as bar:
        for rows, states in over_batches(mllm, prompts, pooled, batch_size=batch_size, answer=answer):
            found.update(zip(rows, states, strict=True))
            bar.update(len(rows))
    return torch.stack([found[index] for index in range(len(prompts))])


def _reader(read: dict[Site, Tensor], site: Site, pool: Pool) -> Edit:
    def edit(hidden: Tensor) -> None:
        read[site] = pool(hidden).to("cpu", torch.float32, copy=True)

    return edit
