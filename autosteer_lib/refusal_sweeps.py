"""What a direction does to the next token, for every candidate: the model's side of the refusal direction's choice.

    next_logits               what the model would say first
    post_instruction_tokens   how many tokens its template puts after the words
    addition_edits, ablation_edits    the two interventions, at all tokens of every pass
    sweep                     bypass, induced and kl of every candidate, on prompts encoded once
    steering_reach            up to which layer a mean difference still makes the model refuse

Source: Arditi et al. 2024 (arXiv 2406.11717) §2.3–2.4. They ablate at the input of every block and at the outputs
of attention and MLP; here at the borders of all blocks. See `ablation_edits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.encoding import Encoded, batches
from autosteer_lib.forced_answer import answer_header
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_candidates import CandidateScores, ablated, next_token_kl, refusal_score
from autosteer_lib.sites import Edit, Site, attach, resid_post, resid_pre

Batches = Sequence[tuple[list[int], Encoded]]
_WORD = "?"  # stands for the user's words where a template is looked at


def post_instruction_tokens(mllm: MLLM) -> int:
    """How many tokens the template puts after the user's words; at least 1, the last of the prompt."""
    turn = [{"role": "user", "content": [{"type": "text", "text": _WORD}]}]
    closed = mllm.render(turn, add_generation_prompt=False)
    after = closed[closed.rindex(_WORD) + len(_WORD) :]
    if mllm.add_generation_prompt:
        after += answer_header(mllm)
    return max(1, len(mllm.tokenizer(after, add_special_tokens=False).input_ids))


def encode_once(mllm: MLLM, prompts: Sequence[Prompt], *, batch_size: int) -> Batches:
    """All batches of the prompts, to be passed many times."""
    return list(batches(mllm, prompts, batch_size=batch_size))


@torch.no_grad()
def next_logits(
    mllm: MLLM, encoded: Batches, edits: Mapping[Site, Edit] | None = None
) -> Float[Tensor, "prompts vocabulary"]:
    """The next token's logits after each prompt, in the prompts' order, on the CPU."""
    found: dict[int, Tensor] = {}
    with mllm.lock, attach(mllm, edits or {}):
        for rows, batch in encoded:
            found.update(zip(rows, mllm.forward(batch.inputs).logits[:, -1].float().cpu(), strict=True))
    return torch.stack([found[index] for index in range(len(found))])


def addition_edits(vector: Float[Tensor, " dim"], *, site: Site) -> dict[Site, Edit]:
    """x ← x + r at one site."""

    def add(hidden: Tensor) -> Tensor:
        return (hidden.float() + vector.to(hidden.device)).to(hidden.dtype)

    return {site: add}


def ablation_edits(vector: Float[Tensor, " dim"], *, layers: int) -> dict[Site, Edit]:
    """x ← x − r̂ r̂ᵀ x at the input of every block and at the output of the last.

    The paper ablates what attention and MLP write besides, so that no state between the two has a component
    along r either. Which module's output is added to the stream is told by no structure: some families put a norm
    behind it, one by a flag of its configuration. At the borders of the blocks it is the same in all of them; the
    one thing left is what a block's MLP may see of what its own attention wrote.
    """
    unit = vector / vector.norm()

    def remove(hidden: Tensor) -> Tensor:
        return ablated(hidden, unit.to(hidden.device))

    sites = [*(resid_pre(layer) for layer in range(layers)), resid_post(layers - 1)]
    return dict.fromkeys(sites, remove)


def sweep(
    mllm: MLLM,
    directions: Float[Tensor, "positions layers dim"],
    *,
    harmful: Batches,
    harmless: Batches,
    tokens: Sequence[int],
    layers: Sequence[int],
    progress: bool = False,
) -> CandidateScores:
    """Score the candidates of these layers; the others, and those that are 0, stay NaN."""
    plain = next_logits(mllm, harmless)
    scores = CandidateScores(*(torch.full(directions.shape[:2], float("nan")) for _ in range(3)))
    usable = [(i, l) for i in range(len(directions)) for l in layers if directions[i, l].any()]  # noqa: E741
    for position, layer in tqdm(usable, desc="candidates", disable=not progress):
        r = directions[position, layer]
        without, with_r = ablation_edits(r, layers=mllm.layers), addition_edits(r, site=resid_pre(layer))
        kept = next_logits(mllm, harmless, without)
        scores.kl[position, layer] = next_token_kl(plain, kept).mean()
        bypass = refusal_score(next_logits(mllm, harmful, without), tokens)
        scores.bypass[position, layer] = bypass.mean()
        induced = refusal_score(next_logits(mllm, harmless, with_r), tokens)
        scores.induced[position, layer] = induced.mean()
    return scores


def steering_reach(
    mllm: MLLM, vectors: Float[Tensor, "layers dim"], *, harmless: Batches, tokens: Sequence[int]
) -> Float[Tensor, " layers"]:
    """Share of harmless prompts that a layer's vector, added after its block, makes the model begin to refuse."""
    shares = []
    for layer, vector in enumerate(vectors):
        logits = next_logits(mllm, harmless, addition_edits(vector, site=resid_post(layer)))
        shares.append((refusal_score(logits, tokens) > 0).float().mean())
    return torch.stack(shares)


def last_before_fall(reach: Float[Tensor, " layers"], *, share: float = 0.9) -> int:
    """The last layer at which steering works about as well as at its best: where activation transfer reads and writes.

    Raises:
        ValueError: it works at no layer.
    """
    if not reach.max() > 0:
        raise ValueError(
            "steering makes the model refuse at no layer; give another vector, or choose the layer by hand"
        )
    return int((reach >= share * reach.max()).nonzero().max())
