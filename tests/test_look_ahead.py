"""Look-ahead: candidates on one shared cache are what a pass without a cache says of each, in every family.

A model that is spread over cards is played by a choice that no operation may mix with other tensors until it is moved;
on two cards themselves nothing is tested but where there are two (`test_safesteer.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.look_ahead import Decoding, Sharing, can_share, repeat_always
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models import BUILDERS
from autosteer_lib.sites import attach, final_norm, resid_post
from tests.test_battery import TOLERANCE, one_more

K, STEPS, TOKENS = 5, 3, 6


class Run:
    """A loop of look-ahead that takes the candidates of a fixed pattern, and all that it saw."""

    def __init__(
        self, mllm: MLLM, encoded: Encoded, *, sharing: Sharing, k: int = K, steps: int = STEPS
    ) -> None:
        self.states: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.candidates: list[Tensor] = []
        self.shared: list[bool] = []
        self.passes = 0
        self.cache: Cache | None = None
        self._sharing, self._k, self._steps = sharing, k, steps
        self._rows = len(encoded.prompts)
        with attach(mllm, {final_norm(): self._read}):
            tokens: Any = mllm.model.generate(
                **encoded.inputs, max_new_tokens=TOKENS, custom_generate=self._decode
            )
        self.said = tokens[:, encoded.inputs["input_ids"].shape[1] :]

    def _read(self, hidden: Tensor) -> None:
        self.passes += 1
        self.states.append(hidden.clone())

    def _share(self, model: Any, cache: Cache) -> bool:
        self.cache = cache
        self.shared.append(self._sharing(model, cache))
        return self.shared[-1]

    def _decode(self, model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        decoding = begin(model, input_ids, prepared, sharing=self._share)
        logits = decoding.prefill()
        self.states.clear()
        for step in range(self._steps):
            self.candidates.append(logits.topk(self._k).indices)
            decoding.look_ahead(self.candidates[-1])
            choice = (torch.arange(self._rows) + step) % self._k
            logits = decoding.take(choice)
            self.logits.append(logits)
        tokens: Tensor = decoding.greedy(logits)
        return tokens


def begin(model: Any, tokens: Tensor, prepared: dict[str, Any], **options: Any) -> Decoding:
    """A Decoding from what `generate` hands to a loop."""
    named = ("logits_processor", "stopping_criteria", "generation_config")
    settings = {name: prepared.pop(name) for name in named}
    return Decoding(model, tokens, **settings, inputs=prepared, **options)


def _read_last(read: list[Tensor], hidden: Tensor) -> None:
    read.append(hidden[:, -1].clone())


def check_against_no_cache(mllm: MLLM, encoded: Encoded, run: Run) -> None:
    """Every candidate's state, the logits after the one taken, and the greedy rest."""
    inputs = encoded.inputs
    for step, candidates in enumerate(run.candidates):
        ahead = run.states[step].reshape(len(candidates), run._k, -1)
        for k in range(run._k):
            read: list[Tensor] = []
            reader = {final_norm(): partial(_read_last, read)}
            with torch.no_grad(), attach(mllm, reader):
                mllm.forward(one_more(inputs, candidates[:, k : k + 1]))
            torch.testing.assert_close(ahead[:, k], read[0], **TOLERANCE)
        inputs = one_more(inputs, run.said[:, step : step + 1])
        with torch.no_grad():
            logits = mllm.forward(inputs).logits[:, -1]
        torch.testing.assert_close(run.logits[step], logits.float(), **TOLERANCE)
    for column in range(len(run.candidates), run.said.shape[1]):
        with torch.no_grad():
            said = mllm.forward(inputs).logits[:, -1].argmax(dim=-1)
        assert torch.equal(run.said[:, column], said)
        inputs = one_more(inputs, said[:, None])


@pytest.mark.battery
def test_candidates_on_one_cache_are_those_of_passes_without_one(
    family_name: str, family: MLLM, family_prompts: list[Prompt]
) -> None:
    encoded = encode(family, family_prompts)
    run = Run(family, encoded, sharing=can_share)
    assert set(run.shared) == {family_name != "qwen3_5"}  # its linear attention keeps a running state
    assert run.passes == TOKENS  # prefill, and one pass a token but the last: as plain decoding
    check_against_no_cache(family, encoded, run)


@pytest.mark.battery
def test_the_repeated_cache_says_the_same(family: MLLM, family_prompts: list[Prompt]) -> None:
    encoded = encode(family, family_prompts)
    shared, repeated = (Run(family, encoded, sharing=sharing) for sharing in (can_share, repeat_always))
    assert set(repeated.shared) == {False}
    assert torch.equal(shared.said, repeated.said)
    for one, other in zip(
        (*shared.logits, *shared.states), (*repeated.logits, *repeated.states), strict=True
    ):
        torch.testing.assert_close(one.flatten(), other.flatten(), **TOLERANCE)


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """Every other block of it sees the last 16 tokens only."""
    return load(BUILDERS["gemma3"](tmp_path_factory.mktemp("gemma"), seed=4), device="cpu")


@pytest.mark.parametrize("words", [1, 4, 6, 20])
def test_a_window_that_fills_up_among_the_candidates_drops_one_token_for_one(
    sliding: MLLM, words: int
) -> None:
    prompt = Prompt(id="p", text=" ".join(["sun"] * words))
    encoded = encode(sliding, [prompt])
    run = Run(sliding, encoded, sharing=can_share, steps=TOKENS)
    assert set(run.shared) == {True}
    check_against_no_cache(sliding, encoded, run)
    assert run.cache is not None
    for layer in run.cache.layers:
        assert not getattr(layer, "record_past", False)
        assert layer.get_seq_length() == encoded.lengths[0] + TOKENS


def test_the_prompts_cache_is_never_copied(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts)
    batches: list[int] = []
    with attach(tiny, {resid_post(0): lambda h: batches.append(len(h))}):
        Run(tiny, encoded, sharing=can_share)
    assert set(batches) == {len(mixed_prompts)}
    batches.clear()
    with attach(tiny, {resid_post(0): lambda h: batches.append(len(h))}):
        Run(tiny, encoded, sharing=repeat_always)
    assert set(batches) == {len(mixed_prompts), K * len(mixed_prompts)}


@pytest.mark.parametrize("k", [1, 2])
def test_the_likeliest_candidate_every_time_is_plain_decoding(
    tiny: MLLM, mixed_prompts: list[Prompt], k: int
) -> None:
    encoded = encode(tiny, mixed_prompts)
    plain: Any = tiny.model.generate(**encoded.inputs, max_new_tokens=TOKENS)

    def decode(model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        decoding = begin(model, input_ids, prepared)
        logits = decoding.prefill()
        for _ in range(2):
            decoding.look_ahead(logits.topk(k).indices)
            logits = decoding.take(torch.zeros(len(input_ids), dtype=torch.long))
        tokens: Tensor = decoding.greedy(logits)
        return tokens

    ours: Any = tiny.model.generate(**encoded.inputs, max_new_tokens=TOKENS, custom_generate=decode)
    assert torch.equal(ours, plain)


def test_a_row_that_has_ended_is_padded_and_a_batch_that_has_ended_stops(
    tiny: MLLM, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts[:3])
    end = int(Run(tiny, encoded, sharing=can_share).said[0, 1])
    with ending_with(tiny, end):
        run = Run(tiny, encoded, sharing=can_share)
        assert run.said[0, 1] == end
        assert set(run.said[0, 2:].tolist()) == {tiny.model.generation_config.pad_token_id}
        alone = Run(tiny, encode(tiny, mixed_prompts[:1]), sharing=can_share, steps=2)
        assert alone.said.shape == (1, 2)
        assert alone.passes == 3  # the prefill, and the passes of two choices


@contextmanager
def ending_with(mllm: MLLM, token: int) -> Iterator[None]:
    config = mllm.model.generation_config
    before = config.eos_token_id
    config.eos_token_id = token
    try:
        yield
    finally:
        config.eos_token_id = before


@pytest.mark.usefixtures("as_a_user")
def test_sharing_is_refused_where_the_mask_would_not_be_heard(tiny: MLLM) -> None:
    def model(**config: Any) -> Any:
        text = SimpleNamespace(**{"_attn_implementation": "sdpa", **config})
        return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda decoder: text))

    cache = DynamicCache(config=tiny.model.config.get_text_config())
    assert can_share(model(), cache)
    assert can_share(model(layer_types=["full_attention", "sliding_attention"]), cache)
    assert not can_share(model(_attn_implementation="flash_attention_2"), cache)
    assert not can_share(model(layer_types=["chunked_attention"]), cache)
    assert not can_share(model(attention_chunk_size=8), cache)
    static = SimpleNamespace(layers=[object()])
    assert not can_share(model(), static)


class OnAnotherCard(Tensor):
    """May be looked at and moved, and nothing else."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        with torch._C.DisableTorchFunctionSubclass():
            if func.__name__ == "__get__":  # its shape, dtype, device
                return func(*args)
            if func is Tensor.to:
                moved, *others = args
                return moved.as_subclass(Tensor).to(*others, **(kwargs or {}))
        raise RuntimeError(f"{func.__name__}: expected all tensors to be on the same device")


@pytest.mark.parametrize("sharing", [can_share, repeat_always])
def test_a_choice_made_on_another_card_is_moved_before_it_is_used(
    tiny: MLLM, mixed_prompts: list[Prompt], sharing: Sharing
) -> None:
    """As SafeSteer's is, of states of the last norm, where a model is spread over cards."""
    encoded = encode(tiny, mixed_prompts)

    def decode(kind: type[Tensor], model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        decoding = begin(model, input_ids, prepared, sharing=sharing)
        decoding.look_ahead(decoding.prefill().topk(K).indices)
        choice = torch.arange(len(input_ids)) % K
        return decoding.greedy(decoding.take(choice.as_subclass(kind)))

    here, there = (
        tiny.model.generate(**encoded.inputs, max_new_tokens=3, custom_generate=partial(decode, kind))
        for kind in (Tensor, OnAnotherCard)
    )
    assert torch.equal(here, there)
    with pytest.raises(RuntimeError, match="same device"):
        torch.arange(3)[torch.arange(2).as_subclass(OnAnotherCard)]


def test_a_model_without_a_cache_is_named(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts[:1])

    def decode(model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
        begin(model, input_ids, prepared).prefill()
        raise AssertionError

    with pytest.raises(ValueError, match=r"LlavaOnevision\w+ returned no cache of .*use_cache = True"):
        tiny.model.generate(**encoded.inputs, max_new_tokens=1, use_cache=False, custom_generate=decode)


def test_eager_attention_takes_the_same_mask(tiny_folder: Path, mixed_prompts: list[Prompt]) -> None:
    eager = load(tiny_folder, device="cpu")
    eager.model.set_attn_implementation("eager")
    encoded = encode(eager, mixed_prompts)
    run = Run(eager, encoded, sharing=can_share)
    assert set(run.shared) == {True}
    check_against_no_cache(eager, encoded, run)
