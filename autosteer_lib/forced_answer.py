"""An answer that is forced on the model: its tokens, as they would stand had the model written them.

    … <assistant>  i am sorry …  <end of turn>
                   └─ answer_ids(mllm, "i am sorry …"), with the header first where the prompt leaves it out

Words are taken where they stand. Where a prompt ends in "Assistant:" and a turn that is over reads "Assistant: i am", as
SmolVLM's, a vocabulary that counts a space to its word has " i" for the first token and not "i": a head that was trained
on the other would push to one that never comes first. The end is the token with which the template ends a turn.
"""

from __future__ import annotations

from typing import Any

from autosteer_lib.arguments import check_given
from autosteer_lib.models import MLLM


def check_answer(answer: str, *, name: str = "answer") -> None:
    """Check that there are words to be forced.

    Raises:
        TypeError, ValueError: no string, or an empty one.
    """
    check_given(answer, str, name=name, remedy="the words as one string")
    if not answer.strip():
        raise ValueError(f"{name}={answer!r} is empty; give the words to force")


def answer_ids(mllm: MLLM, answer: str) -> tuple[int, ...]:
    """Tokens of an answer and of the turn's end.

    Raises:
        TypeError, ValueError: no words, or a template that does not say where the assistant's turn begins.
    """
    check_answer(answer)
    opened, gap = _opening(mllm)
    if mllm.add_generation_prompt:
        ids = _ids_after(mllm.tokenizer, opened, gap + answer)
    else:
        ids = _ids(mllm.tokenizer, answer_header(mllm) + gap + answer)
    return (*ids, _turn_end(mllm))


def answer_header(mllm: MLLM) -> str:
    """What the chat template puts before the assistant's words."""
    closed, opened = (
        mllm.render([_turn("user", "?")], add_generation_prompt=header) for header in (False, True)
    )
    if not opened.startswith(closed):
        raise ValueError(
            f"the chat template of {mllm.name} does not append the assistant's header to the turn; "
            "use add_generation_prompt=True with it"
        )
    return opened[len(closed) :] + separator(mllm)


def separator(mllm: MLLM) -> str:
    """What the processor itself appends to a user's turn, outside of the template (Chameleon's does)."""
    appends = hasattr(mllm.processor, "return_for_text_completion")
    return mllm.tokenizer.sep_token if appends else ""


def _opening(mllm: MLLM) -> tuple[str, str]:
    """A turn up to the assistant's words, and what the template writes between: after "Assistant:" a space, in some."""
    user, assistant = _turn("user", "?"), _turn("assistant", "!")
    opened = mllm.render([user], add_generation_prompt=True) + separator(mllm)
    written = mllm.render([user, assistant], add_generation_prompt=False)
    between = written[len(opened) :].partition("!")[0] if written.startswith(opened) else ""
    return opened, between if between.isspace() else ""


def _ids_after(tokenizer: Any, before: str, words: str) -> list[int]:
    """The words' tokens where they stand: alone they may lose a space that is part of the first token, or gain one."""
    opened, whole = _ids(tokenizer, before), _ids(tokenizer, before + words)
    shared = whole[: len(opened)] == opened  # else a token spans both
    return whole[len(opened) :] if shared else _ids(tokenizer, words.lstrip())


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _turn_end(mllm: MLLM) -> int:
    """The token that ends an assistant's turn: of those that end an answer, the one its template writes."""
    ends = mllm.model.generation_config.eos_token_id
    if isinstance(ends, int):
        return ends
    rendered = mllm.render([_turn("user", "?"), _turn("assistant", "!")], add_generation_prompt=False)
    written = mllm.tokenizer(rendered[rendered.rindex("!") :], add_special_tokens=False).input_ids
    return next((token for token in written if token in ends), ends[0])


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
