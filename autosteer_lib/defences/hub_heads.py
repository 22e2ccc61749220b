"""MLLM-Protector's own parts, or others of their kind, by folder or by hub id: text models beside the defended one.

    HubDetector("renjiepi/protector_detector_3b_lora")     P(safe) = σ(one output), over the answer's words
    HubRewriter("renjiepi/mllm_protector_detoxifier")      a causal language model that rewrites

They are loaded when they are constructed, so what is missing shows before any answer is written. As everywhere
here only safetensors are read and no code of a checkpoint is run. The detector is a LoRA on a base of 3B,
which needs the package peft and fetches that base too. The published heads themselves were not run here.

Source: pipilurj/MLLM-protector at 390e326 (robustness_eval.py): greedy, score 1 is safe.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

from autosteer_lib.defences.answer_detector import Exchange
from autosteer_lib.defences.asking import check_template
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.models import MLLM
from autosteer_lib.text_models import load_text_model

LONGEST = 512  # tokens that the published detector was trained on


class HubDetector:
    """A text classifier with one output, of which a high one means safe."""

    def __init__(
        self,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        longest: int = LONGEST,
    ) -> None:
        """Load it.

        Args:
            name: a folder, or owner/name on the hub.
            revision: branch, tag or commit on the hub.
            device: where it runs.
            dtype: of its weights; the published code has bfloat16.
            longest: tokens of an answer that are read, its first ones; the published code cuts at its tokenizer's own limit
                instead, and so reads on in longer ones.

        Raises:
            OSError, ValueError, ImportError: what is missing, and the remedy.
        """
        if longest < 1:
            raise ValueError(f"longest={longest}; a detector must read at least 1 token")
        self.longest = longest
        self._model, self._tokenizer, self._identity = load_text_model(
            AutoModelForSequenceClassification,
            name,
            revision=revision,
            dtype=dtype,
            device=device,
            num_labels=1,
        )
        self._tokenizer.padding_side = "right"
        self._model.config.pad_token_id = self._tokenizer.pad_token_id

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint, its dtype and device, and how much is read."""
        return state_hash({}, {"detector": self._identity, "longest": self.longest})

    def check(self, mllm: MLLM) -> None:
        """Nothing: it reads words, whoever wrote them."""

    @torch.no_grad()
    def look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        """1 − P(safe) of each answer, without its request."""
        found: list[Response] = []
        for start in range(0, len(exchanges), batch_size):
            some = exchanges[start : start + batch_size]
            inputs = self._tokenizer(
                [exchange.answer for exchange in some],
                padding=True, truncation=True, max_length=self.longest, return_tensors="pt",
            )  # fmt: skip
            clock = time.perf_counter()
            outputs = self._model(
                input_ids=inputs["input_ids"].to(self._model.device),
                attention_mask=inputs["attention_mask"].to(self._model.device),
            )
            harmful = torch.sigmoid(-outputs.logits.flatten().float()).tolist()
            seconds = (time.perf_counter() - clock) / len(some)
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            found += [
                Response(
                    prompt_id=exchange.prompt.id, text="", new_tokens=0, prompt_tokens=length,
                    gate_score=score, seconds=seconds,
                )
                for exchange, score, length in zip(some, harmful, lengths, strict=True)
            ]  # fmt: skip
        return found


class HubRewriter:
    """A causal language model that is given an answer and writes a harmless one."""

    def __init__(
        self,
        name: str | Path,
        *,
        template: str,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Load it.

        Args:
            name: a folder, or owner/name on the hub.
            template: the words that it was trained on, with {answer}, and {question} if they were there; for the
                published one they stand in its repository (robustness_eval.py).
            revision: branch, tag or commit on the hub.
            device: where it runs.
            dtype: of its weights.

        Raises:
            OSError, ValueError, ImportError: what is missing, and the remedy.
        """
        check_template("template", template, needs=("answer",), may=("question",))
        self.template = template
        self._model, self._tokenizer, self._identity = load_text_model(
            AutoModelForCausalLM, name, revision=revision, dtype=dtype, device=device
        )
        end = self._model.generation_config.eos_token_id
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=self._tokenizer.eos_token_id if end is None else end,
            pad_token_id=self._tokenizer.pad_token_id,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint, its dtype and device, and the template."""
        return state_hash({}, {"rewriter": self._identity, "template": self.template})

    @torch.no_grad()
    def rewrite(
        self, mllm: MLLM, exchanges: Sequence[Exchange], *, settings: GenerationSettings
    ) -> list[Response]:
        """One at a time: few answers are harmful, and padding is then no question."""
        found = []
        for exchange in exchanges:
            words = self.template.format(question=exchange.prompt.text, answer=exchange.answer)
            inputs = self._tokenizer(words, return_tensors="pt")
            clock = time.perf_counter()
            tokens = self._model.generate(
                input_ids=inputs["input_ids"].to(self._model.device),
                attention_mask=inputs["attention_mask"].to(self._model.device),
                max_new_tokens=settings.max_new_tokens,
            )
            length = inputs["input_ids"].shape[1]
            said = tokens[0, length:].tolist()
            seconds = time.perf_counter() - clock
            found.append(
                Response(
                    prompt_id=exchange.prompt.id,
                    text=self._tokenizer.decode(said, skip_special_tokens=True).strip(),
                    new_tokens=len(said), prompt_tokens=length, seconds=seconds,
                )
            )  # fmt: skip
        return found
