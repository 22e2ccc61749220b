"""What a chat template writes, and with which of its own switches.

    text = template(turns, add_generation_prompt, **template_options)

A template is a program, and may read options of its author's. They decide how a prompt ends, thus which token is
probed and whether a forced refusal and an answer's first words are the answer's or a thought's:

    Qwen3.5, default          … assistant\\n<think>\\n                       a thought is open (its two smallest: closed)
    enable_thinking=False     … assistant\\n<think>\\n\\n</think>\\n\\n          it is closed, and the answer comes next
    Qwen3-VL                  reads no such option: Instruct has no thought, Thinking always opens one

An option that a template does not read would be ignored in silence; it is an error here.
Source: chat_template.jinja of the released checkpoints, and the model cards of Qwen3.5-0.8B and -2B.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

TemplateOptions: TypeAlias = Mapping[str, bool | int | float | str]


def rendered(
    processor: Any, turns: Sequence[dict[str, Any]], *, add_generation_prompt: bool, options: TemplateOptions
) -> str:
    """The text of a conversation."""
    text: str = processor.apply_chat_template(
        list(turns),
        # Named, because one processor has another template of its own for clips.
        chat_template=processor.chat_template,
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
        **options,
    )
    return text


def check_template(folder: Path, processor: Any, *, options: TemplateOptions) -> None:
    """Refuse a template that cannot render a turn of words, and options that it does not read.

    Raises:
        ValueError: names the folder, and the template's own error or the option.
    """
    _check_names(processor, options)
    try:
        rendered(processor, [_turn("user")], add_generation_prompt=True, options=options)
    except Exception as error:
        # A template is a program of its author's: it can raise anything.
        raise ValueError(
            f"the chat template of {folder} cannot render a turn of words ({type(error).__name__}: {error}); content is "
            "given as a list of parts, {'type': 'text', 'text': …}, {'type': 'image'}, {'type': 'video'}: mend "
            "chat_template.jinja, or set processor.chat_template and save it"
        ) from error
    for name, value in options.items():
        without = {key: other for key, other in options.items() if key != name}
        # A switch may be given as it stands anyway; then the other side shows that it is read.
        sides = (value, not value) if isinstance(value, bool) else (value,)
        plain = _looks(processor, without)
        if all(_looks(processor, {**without, name: side}) == plain for side in sides):
            raise ValueError(
                f"the chat template of {folder} does not read template_options {name!r}: with {name}={value!r} and "
                "without it, it writes the same text; leave it out, or look in chat_template.jinja for what it reads"
            )


def _check_names(processor: Any, options: TemplateOptions) -> None:
    taken = inspect.signature(processor.apply_chat_template).parameters
    for name, value in options.items():
        if name in taken:
            raise ValueError(
                f"template_options has {name!r}, which is an argument of apply_chat_template and no option of a "
                "template; leave it out (the prompt's end is load's add_generation_prompt)"
            )
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"template_options has {name}={value!r}; give true, false, a number or a text")


def _looks(processor: Any, options: TemplateOptions) -> list[str]:
    """What the options could change: words, an answer, whatever the model sees; with the header and without."""
    seen = [kind for kind in ("image", "video") if getattr(processor, f"{kind}_processor", None) is not None]
    conversations = [[_turn("user")], [_turn("user"), _turn("assistant"), _turn("user")]]
    conversations += [[_turn("user", kind)] for kind in seen]
    looks = []
    for turns in conversations:
        for opened in (False, True):
            try:
                looks.append(rendered(processor, turns, add_generation_prompt=opened, options=options))
            except Exception as error:
                looks.append(repr(error))  # not every template renders all of them
    return looks


def _turn(role: str, *kinds: str) -> dict[str, Any]:
    return {"role": role, "content": [*({"type": kind} for kind in kinds), {"type": "text", "text": "?"}]}
