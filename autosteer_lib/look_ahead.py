"""Look-ahead: run K candidates for the next token one token on, for all rows in one pass and on one cache.

    past    keys and values of prompt and answer so far
    pass    the candidates as K tokens of one sequence, at one and the same position. Each sees past and itself:

                 past … past   c₁ c₂ c₃
            c₁    1   …   1     1  0  0
            c₂    1   …   1     0  1  0
            c₃    1   …   1     0  0  1

    take    the chosen candidate's keys and values move to the first of the K places, the others are cut off

So the prompt's cache is never copied, and the chosen candidate's pass is the one that plain decoding would have
made: K candidates cost a wider pass and no further one. A cache with recurrent states (linear attention) or of
another kind, and an attention that takes no such mask, get the plain way instead: the cache repeated K times, one
candidate a row, and the chosen rows kept.

`Decoding` serves a loop for `generate(custom_generate=…)`, which prepares inputs, positions and cache and leaves
the choice of tokens to us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Attentions that add a mask to their scores; others have formats of their own.
MASKED_BY_ADDING = ("eager", "sdpa")
# Layers that see all of the past or its end. Others (chunks, recurrent states) would need other masks or cannot share.
_SEE_THE_PAST = {"full_attention", "sliding_attention"}
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")

Sharing: TypeAlias = Callable[[PreTrainedModel, Cache], bool]


def can_share(model: PreTrainedModel, cache: Cache) -> bool:
    """Whether K candidates can stand in one sequence on this cache."""
    config = model.config.get_text_config(decoder=True)
    return (
        config._attn_implementation in MASKED_BY_ADDING
        and set(getattr(config, "layer_types", None) or ()) <= _SEE_THE_PAST
        and getattr(config, "attention_chunk_size", None) is None
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    )


def repeat_always(model: PreTrainedModel, cache: Cache) -> bool:
    """The plain way wherever it would do, as a check of the other."""
    del model, cache
    return False


@dataclass(frozen=True, kw_only=True)
class _Ahead:
    """A pass of candidates of which none is taken yet."""

    candidates: Int[Tensor, "batch k"]
    outputs: Any
    shared: bool


class Decoding:
    """The answers of one batch, while they are written."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokens: Int[Tensor, "batch tokens"],
        *,
        logits_processor: Callable[..., Any],
        stopping_criteria: Callable[..., Any],
        generation_config: Any,
        inputs: dict[str, Any],
        sharing: Sharing = can_share,
    ) -> None:
        """Begin with the prompts; the arguments are what `generate` hands to a loop.

        Args:
            model: with hooks or without.
            tokens: the prompts, left-padded.
            logits_processor: changes logits before a token is chosen.
            stopping_criteria: says which rows have ended.
            generation_config: of this batch.
            inputs: all further inputs of the model's forward, the cache among them.
            sharing: whether candidates share the cache; where not, it is repeated for them.
        """
        self.tokens = tokens
        self.finished = False
        """Whether every answer has ended."""
        self._model: Any = model
        self._processor, self._stopping, self._config = logits_processor, stopping_criteria, generation_config
        self._inputs, self._sharing = inputs, sharing
        self._running = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        self._ahead: _Ahead | None = None

    def prefill(self) -> Float[Tensor, "batch vocabulary"]:
        """The prompts' pass; logits of the first token.

        Raises:
            ValueError: the model keeps no cache.
        """
        outputs = self._model._prefill(self.tokens, self._config, self._inputs)
        if not isinstance(getattr(outputs, "past_key_values", None), Cache):
            raise ValueError(
                f"{type(self._model).__name__} returned no cache of keys and values, on which candidates are run; set "
                "model.generation_config.use_cache = True, or take a family whose generation keeps a cache"
            )
        return self._next(outputs, outputs.logits[:, -1])

    def look_ahead(self, candidates: Int[Tensor, "batch k"]) -> None:
        """Run each candidate one token on; then `take` one of each row.

        A hook in this pass sees states [batch, k, dim], or [batch · k, 1, dim] where the cache is repeated:
        `view(batch, k, dim)` fits both.
        """
        # Without positions of its own a model would count the candidates on.
        shared = self._inputs.get("position_ids") is not None and self._sharing(
            self._model, self._inputs["past_key_values"]
        )
        outputs = (self._on_one_cache if shared else self._on_copies)(candidates)
        self._ahead = _Ahead(candidates=candidates, outputs=outputs, shared=shared)

    def take(self, choice: Int[Tensor, " batch"]) -> Float[Tensor, "batch vocabulary"]:
        """Go on with one candidate of each row; logits of the token after it."""
        assert self._ahead is not None  # look_ahead comes first
        ahead, self._ahead = self._ahead, None
        choice = choice.to(ahead.candidates.device)  # chosen by states, which may lie on another card
        (batch, k), cache = ahead.candidates.shape, self._inputs["past_key_values"]
        rows = torch.arange(batch, device=choice.device)
        if ahead.shared:
            _keep_one(cache, choice, k=k)
        else:
            cache.reorder_cache(rows * k + choice)
        self._append(ahead.candidates[rows, choice])
        return self._next(ahead.outputs, ahead.outputs.logits.reshape(batch, k, -1)[rows, choice])

    def greedy(self, logits: Float[Tensor, "batch vocabulary"]) -> Int[Tensor, "batch tokens"]:
        """Write the rest of the answers from the logits of their next token; prompts and answers."""
        while not self.finished:
            self._append(logits.argmax(dim=-1))
            if not self.finished:
                prepared = self._model.prepare_inputs_for_generation(
                    self.tokens, next_sequence_length=1, **self._inputs
                )
                outputs = self._model(**prepared, return_dict=True)
                logits = self._next(outputs, outputs.logits[:, -1])
        return self.tokens

    def _append(self, chosen: Int[Tensor, " batch"]) -> None:
        chosen = torch.where(self._running, chosen, self._config._pad_token_tensor)
        self.tokens = torch.cat((self.tokens, chosen[:, None]), dim=1)
        self._running = self._running & ~self._stopping(self.tokens, None)
        self.finished = not bool(self._running.any())  # as generate's own loop asks after each token

    def _next(self, outputs: Any, logits: Tensor) -> Float[Tensor, "batch vocabulary"]:
        """Masks, positions and types of one more token; the logits that it is chosen by."""
        self._inputs = self._model._update_model_kwargs_for_generation(outputs, self._inputs)
        scores: Tensor = self._processor(self.tokens, logits.to(torch.float32, copy=True))
        return scores

    def _on_one_cache(self, candidates: Int[Tensor, "batch k"]) -> Any:
        k = candidates.shape[1]
        cache = self._inputs["past_key_values"]
        cache.activate_past_recording()  # a sliding window must not drop k tokens for one
        inputs = {**self._inputs, "attention_mask": self._candidates_mask(k)}
        for name in ("position_ids", *_TOKEN_TYPES):
            if inputs.get(name) is not None:  # all are the next token, whatever its number of dimensions
                inputs[name] = inputs[name][..., -1:].expand(*inputs[name].shape[:-1], k)
        if "logits_to_keep" in inputs:
            inputs["logits_to_keep"] = k
        return self._model(
            **self._model.prepare_inputs_for_generation(candidates, **inputs), return_dict=True
        )

    def _on_copies(self, candidates: Int[Tensor, "batch k"]) -> Any:
        batch, k = candidates.shape
        cache = self._inputs["past_key_values"]
        cache.reorder_cache(torch.arange(batch, device=candidates.device).repeat_interleave(k))
        inputs = dict(self._inputs)
        for name in ("attention_mask", "position_ids", *_TOKEN_TYPES):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name].repeat_interleave(k, dim=-2)
        prepared = self._model.prepare_inputs_for_generation(
            candidates.reshape(batch * k, 1), next_sequence_length=1, **inputs
        )
        return self._model(**prepared, return_dict=True)

    def _candidates_mask(self, k: int) -> Tensor | dict[str, Tensor]:
        """The header's mask, one for each kind of layer, in the form in which generate prepares masks itself."""
        cache = self._inputs["past_key_values"]
        tokens = self._inputs.get("attention_mask")
        batch, past = len(self.tokens), self.tokens.shape[1]
        device = self.tokens.device
        seen = (
            torch.ones(batch, past, dtype=torch.bool, device=device)
            if tokens is None
            else tokens[:, :past].bool()
        )

        def mask(layer: int) -> Float[Tensor, "batch 1 k keys"]:
            kept = cache.get_mask_sizes(1, layer)[0] - 1  # of the past; a window keeps its last tokens only
            return _added(seen[:, past - kept :], k=k, dtype=self._model.dtype)

        kinds = getattr(self._model.config.get_text_config(decoder=True), "layer_types", None)
        if kinds is None:
            return mask(0)
        return {kind: mask(kinds.index(kind)) for kind in set(kinds)}


def _added(
    seen: Bool[Tensor, "batch past"], *, k: int, dtype: torch.dtype
) -> Float[Tensor, "batch 1 k keys"]:
    past = seen[:, None, :].expand(-1, k, -1)
    itself = torch.eye(k, dtype=torch.bool, device=seen.device).expand(len(seen), -1, -1)
    may_see = torch.cat((past, itself), dim=-1).unsqueeze(1)
    nothing = torch.zeros((), dtype=dtype, device=seen.device)
    return torch.where(may_see, nothing, torch.finfo(dtype).min)


def _keep_one(cache: Cache, choice: Int[Tensor, " batch"], *, k: int) -> None:
    for layer in cache.layers:
        for kept in (layer.keys, layer.values):  # [batch, heads, tokens, dim_head], the cache's own
            first = kept.shape[2] - k
            rows = torch.arange(len(kept), device=kept.device)
            kept[:, :, first] = kept[rows, :, first + choice.to(kept.device)]
    cache.crop(-(k - 1))
    for layer in cache.layers:
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.record_past = False  # what follows is one token at a time again
