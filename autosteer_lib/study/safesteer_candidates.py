"""Chapter 06, the cause: can the first token be a refusal at all, would the probe take it, and what does it take?

    reach     is the refusal's first word among the K likeliest first tokens? plainly, and after the alignment shift
    prefer    s after the refusal's first word against s after the model's own first word, and against all candidates
    odds      how likely the k-th likeliest first token is
    taken     which tokens re-ranking chose, one prompt at a time (the paper's Fig. 5)

Re-ranking can refuse where the first two hold together: a method that fails for want of the first is let down by the
candidates, one that fails the second by its probe.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.defences import SafeSteer
from autosteer_lib.encoding import batches
from autosteer_lib.generation import GenerationSettings, generate
from autosteer_lib.metrics import Rate
from autosteer_lib.modal_alignment import Direction
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import attach, final_norm
from autosteer_lib.study.safesteer_states import site_of
from autosteer_lib.study.study import Study

SHIFTS: dict[str, Direction | None] = {
    "no shift": None,
    "towards text": "towards_text",
    "as printed": "as_printed",
}


def reach(study: Study, defence: SafeSteer, prompts: Sequence[Prompt], *, ks: Sequence[int]) -> pd.DataFrame:
    """How often the refusal's first token is among the K likeliest, by surface and shift (of harmful prompts only).

    Returns:
        shift, surface, k, rate, low, high, n.
    """
    states = _first_states(study, prompts)
    rows = []
    for shift in SHIFTS:
        logits = _logits(study, _shifted(defence, states, shift))
        refusal = logits[:, _refusal_ids(study)[0], None]
        ranks = pd.Series(((logits > refusal).sum(dim=1) + 1).tolist())
        for surface, mine in _by_surface(prompts).items():
            rows += [
                {"shift": shift, "surface": surface, "k": k, **Rate.of((ranks[mine] <= k).tolist()).as_row()}
                for k in ks
            ]
    return pd.DataFrame(rows)


def odds(study: Study, prompts: Sequence[Prompt], *, ranks: Sequence[int]) -> pd.DataFrame:
    """How likely the plain model's k-th likeliest first token is.

    Returns:
        surface, rank, mean, median (probabilities), n.
    """
    likeliest = _logits(study, _first_states(study, prompts)).softmax(dim=-1).sort(dim=-1, descending=True)
    rows = []
    for surface, mine in _by_surface(prompts).items():
        for rank in ranks:
            found = likeliest.values[mine, rank - 1]
            rows.append(
                {
                    "surface": surface,
                    "rank": rank,
                    "mean": float(found.mean()),
                    "median": float(found.quantile(0.5)),  # torch's own takes the lower of two in the middle
                    "n": len(mine),
                }
            )
    return pd.DataFrame(rows)


def prefer(study: Study, defence: SafeSteer, prompts: Sequence[Prompt]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the probe thinks of first words: the refusal's, the model's own, and the best of the K candidates.

    Returns:
        scores: surface, word ("refusal", "own", "best candidate"), mean, low, high (10th and 90th percentile), n;
        wins: surface, against ("own", "best candidate"), rate at which the probe prefers the refusal's word, low, high, n.
    """
    refusal = _after_refusal(study, defence, prompts)
    ranked = _ranked(study, defence.retuned(align=False, step=1), prompts)
    among = torch.stack([scores for _, scores, _ in ranked])
    best = defence.sign_ * (defence.sign_ * among).amax(dim=1)
    found = {"refusal": refusal, "own": among[:, 0], "best candidate": best}
    scores, wins = [], []
    for surface, mine in _by_surface(prompts).items():
        for word, values in found.items():
            low, high = torch.quantile(values[mine], torch.tensor([0.1, 0.9])).tolist()
            mean = float(values[mine].mean())
            scores.append(
                {"surface": surface, "word": word, "mean": mean, "low": low, "high": high, "n": len(mine)}
            )
        for against in ("own", "best candidate"):
            lead = defence.sign_ * (refusal - found[against])[mine]
            # The refusal's word may be that very candidate; its state was computed in another batch.
            rate = Rate.of((lead >= -1e-4).tolist())
            wins.append({"surface": surface, "against": against, **rate.as_row()})
    return pd.DataFrame(scores), pd.DataFrame(wins)


def taken(study: Study, defence: SafeSteer, prompts: Sequence[Prompt]) -> pd.DataFrame:
    """What each re-ranked token was chosen from.

    Returns:
        surface, group ("harmful", "harmless"), prompt, token (1 is the first), candidates (the likeliest first, with
        their scores), chosen, its place among the candidates; no rows of a prompt on which the gate stays shut.
    """
    columns = ["surface", "group", "prompt", "token", "candidates", "chosen", "place"]
    rows = []
    for prompt in prompts:
        for number, (candidates, scores, choice) in enumerate(_steps(study, defence, prompt), 1):
            words = [study.mllm.tokenizer.decode([token]).strip() or "·" for token in candidates.tolist()]
            rows.append(
                {
                    "surface": prompt.surface,
                    "group": "harmful" if prompt.harmful else "harmless",
                    "prompt": prompt.text,
                    "token": number,
                    "candidates": ", ".join(
                        f"{word} {score:.1f}" for word, score in zip(words, scores.tolist(), strict=True)
                    ),
                    "chosen": words[choice],
                    "place": choice + 1,
                }
            )
    return pd.DataFrame(rows, columns=columns)


def _steps(study: Study, defence: SafeSteer, prompt: Prompt) -> list[tuple[Tensor, Tensor, int]]:
    """(candidates, scores, choice) of every re-ranked token of one answer."""
    ((_, encoded),) = batches(study.mllm, [prompt], batch_size=1)
    steering = defence.steering(study.mllm, encoded)
    generate(study.mllm, encoded, settings=study.settings, steering=steering)
    return [(r.candidates[0].cpu(), r.scores[0].cpu(), int(r.choice[0])) for r in steering.ranked]


def _ranked(
    study: Study, defence: SafeSteer, prompts: Sequence[Prompt]
) -> list[tuple[Int[Tensor, " k"], Float[Tensor, " k"], int]]:
    """(candidates, scores, choice) of every prompt's first token; prompts that are not judged harmful too."""
    every = defence.retuned(threshold=0.0)  # a gate that is open for all
    settings = GenerationSettings(max_new_tokens=2, batch_size=study.settings.batch_size)
    found: dict[int, tuple[Tensor, Tensor, int]] = {}
    for rows, encoded in batches(study.mllm, prompts, batch_size=settings.batch_size):
        steering = every.steering(study.mllm, encoded)
        generate(study.mllm, encoded, settings=settings, steering=steering)
        first = steering.ranked[0]
        for place, index in enumerate(rows):
            found[index] = (
                first.candidates[place].cpu(),
                first.scores[place].cpu(),
                int(first.choice[place]),
            )
    return [found[index] for index in range(len(prompts))]


@torch.no_grad()
def _after_refusal(study: Study, defence: SafeSteer, prompts: Sequence[Prompt]) -> Float[Tensor, " prompts"]:
    """s at the first token of a refusal that is forced after each prompt."""
    site, refusal = site_of(study, defence), study.profile.head.refusal_text
    first = (
        -len(_refusal_ids(study)) - 1
    )  # the end of the turn stands behind it; later tokens are not seen from it
    scores = torch.empty(len(prompts))
    for rows, encoded in batches(study.mllm, prompts, batch_size=study.settings.batch_size, answer=refusal):
        seen: list[Tensor] = []

        def look(hidden: Tensor, seen: list[Tensor] = seen) -> None:
            seen.append(hidden[:, first].float().cpu())

        with attach(study.mllm, {site: look}):
            study.mllm.forward(encoded.inputs)
        scores[rows] = defence.probe_.score(seen[0])
    return scores


def _first_states(study: Study, prompts: Sequence[Prompt]) -> Float[Tensor, "prompts dim"]:
    """Of the last norm, from which the first token is predicted."""
    build = study.artefacts.build / "states"
    states = collect(
        study.mllm,
        prompts,
        sites=[final_norm()],
        batch_size=study.settings.batch_size,
        cache=build,
    )
    return states[:, 0]


def _shifted(
    defence: SafeSteer, states: Float[Tensor, "prompts dim"], shift: str
) -> Float[Tensor, "prompts dim"]:
    direction = SHIFTS[shift]
    if direction is None:
        return states
    assert defence.alignment_ is not None  # study.safesteer fits with it
    harmful = defence.probe_.score(states).sigmoid() > defence.threshold
    moved = states + defence.alignment_.shift(states, direction=direction, scale=defence.reading.scale)
    return torch.where(harmful[:, None], moved, states)


def _logits(study: Study, states: Float[Tensor, "prompts dim"]) -> Float[Tensor, "prompts vocabulary"]:
    return states @ study.mllm.unembedding.detach().float().cpu().T


def _refusal_ids(study: Study) -> list[int]:
    """Of the refusal that the profile names."""
    ids: list[int] = study.mllm.tokenizer(study.profile.head.refusal_text, add_special_tokens=False).input_ids
    return ids


def _by_surface(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        found.setdefault(prompt.surface, []).append(index)
    return found
