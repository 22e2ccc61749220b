"""A checkpoint that replies to a judge's questions, here, in batches.

    questions → the checkpoint's own template, left padding → greedy tokens → words

Questions of like length share a batch, a batch that does not fit is halved (halving.py), and a question that is
longer than the model's context gets no reply. Greedy, so the same question gets the same reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from autosteer_lib.checkpoints import locate
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.halving import Failure, Halving, Outcome
from autosteer_lib.judges.asked import Question
from autosteer_lib.text_models import load_text_model

_CHUNK = 8192  # tokens; transformers' own default for Llama 4


class LocalModel:
    """A text model on this machine."""

    def __init__(
        self,
        name: str | Path,
        *,
        kind: Any = AutoModelForCausalLM,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        batch_size: int = 16,
    ) -> None:
        """Load it.

        Args:
            name: a folder, or owner/name on the hub.
            kind: the auto class of transformers that knows it; that of image-text models for a judge that sees too.
            revision: branch, tag or commit on the hub.
            device: where it runs.
            dtype: of its weights; all published judges are bfloat16 or load as that.
            batch_size: questions at once; halved where they do not fit.

        Raises:
            OSError, ValueError, ImportError: what is missing, and the remedy.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; give at least 1")
        self.batch_size = batch_size
        self._name = str(name)
        _check_tokenizer(name, locate(name, revision=revision)[0])
        self._model, self._tokenizer, self._identity = load_text_model(
            kind, name, revision=revision, dtype=dtype, device=device
        )
        self._tokenizer.padding_side = "left"
        ends = self._model.generation_config.eos_token_id
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=self._tokenizer.eos_token_id if ends is None else ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        text = self._model.config.get_text_config()
        if getattr(text, "attention_chunk_size", _CHUNK) is None:
            # Llama Guard 4's is null, of which transformers makes no mask (meta-llama/PurpleLlama, issue 119).
            text.attention_chunk_size = _CHUNK
        self._context = text.max_position_embeddings

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint, its dtype and device."""
        return state_hash({}, {"judge": self._identity})

    def replies(self, questions: Sequence[Question], *, longest: int) -> Iterator[list[Outcome[str]]]:
        """Reply to all questions, shortest first."""
        ids = [self._ids(question) for question in questions]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        halving = Halving(only_memory=True)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            fitting = [row for row in rows if len(ids[row]) + longest <= self._context]
            yield [
                *halving(lambda part: self._reply([ids[row] for row in part], longest=longest), fitting),
                *(Outcome[str](row=row, result=self._too_long(len(ids[row]), longest))
                  for row in rows if row not in fitting),
            ]  # fmt: skip

    def _ids(self, question: Question) -> list[int]:
        if question.text:
            ids: list[int] = self._tokenizer(
                question.text, add_special_tokens=question.special_tokens
            ).input_ids
            return ids
        if self._tokenizer.chat_template is None:
            raise ValueError(
                f"{self._name} has no chat template, which is where a guard's policy stands; give the published "
                f"checkpoint, with its tokenizer_config.json or chat_template.jinja"
            )
        turns = [
            {"role": role, "content": [{"type": "text", "text": words}] if question.in_parts else words}
            for role, words in question.turns
        ]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids

    @torch.no_grad()
    def _reply(self, ids: list[list[int]], *, longest: int) -> list[str]:
        batch = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        tokens = self._model.generate(
            input_ids=batch["input_ids"].to(self._model.device),
            attention_mask=batch["attention_mask"].to(self._model.device),
            max_new_tokens=longest,
        )
        said = tokens[:, batch["input_ids"].shape[1] :].cpu()
        found: list[str] = self._tokenizer.batch_decode(said, skip_special_tokens=True)
        return found

    def _too_long(self, tokens: int, longest: int) -> Failure:
        return Failure(
            error=f"{tokens} tokens and {longest} for the reply, more than the {self._context} of {self._name}'s context",
            out_of_memory=False,
        )


def _check_tokenizer(name: str | Path, folder: Path) -> None:
    """Where only sentencepiece can read the tokenizer, say so: transformers' own error names another package."""
    alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    if alone and find_spec("sentencepiece") is None:
        raise ImportError(
            f"{name} has its tokenizer as tokenizer.model alone, which the package sentencepiece reads: "
            "pip install sentencepiece"
        )
