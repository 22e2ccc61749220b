"""Is a free answer right? By how its benchmark compares answers.

    letter    the option that the answer decides for, A … J (below)
    yes_no    its first yes or no
    word      the reference is among its words, a number in figures or in words

The first two read one decision out of the answer and compare it; an answer that names none is wrong. The
third is AutoSteer's regular expression for RealWorldQA (App. B.1); for single letters it would take the
article "a" for option A, which is why options are parsed here instead.

A letter is read from the answer without its markdown, quotes, $ and \\boxed{}. What comes first of:

    said      "the answer is B", "Answer: (B)", "\\boxed{B}", "B is correct"
    begun     "B. …", "(B) …", "Option B: …"
    chosen    "I'd choose B", "go with B", "It is B"
    ended     "…, so B."
    bracketed "(B)", then lone: "probably B, by its shape"

and within one of them the last, for a reasoned answer names what it rejects first. An A before a lower-case
word is the article and an I the pronoun, unless that word goes on about an option ("is", "because", …). One rule for
all letters, so that none is read more often than another; only a lone I in mid-sentence is never an option.

Sources: MMMU's `parse_multi_choice_response` and MMMU-Pro's, which look behind the last "Answer:", then for (B), B
and "B.", the last of each; lmms-eval's copy of it; VLMEvalKit's `can_infer_option`, which drops marks and will not
take an A in prose. Followed in spirit: MMMU draws at random where it reads nothing, and VLMEvalKit asks a model. The
first yes or no is POPE's.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Scoring = Literal["letter", "yes_no", "word"]

_NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
_MARKS = re.compile(r"\\[a-z]+|\\[()\[\]]|[*`$\"“”{}]|^ *#+ |(?<!\w)['‘’_]+|['’_]+(?!\w)", re.MULTILINE)
_DENIED = r"(?![)\]]? +is (?:not|incorrect|wrong|false)\b)"
# A letter that stands alone, is not denied, and is neither article nor pronoun.
_OPTION = (
    r"(?<!\bnot )(?<!\bnot \()[(\[]?(?<![\w'’°&+-])(?<!\w\.)([A-J])(?![\w'’&+#-]|\.\w)"
    r"(?! +(?!(?:is|because|since|as|to|and|or|which|with|from)\b)[a-z])" + _DENIED
)
_NAMED = r"(?i:(?:the|option|choice|letter|clearly|likely|most|probably|therefore)\s+)*" + _OPTION
_LETTER = [
    re.compile(pattern)
    for pattern in (
        # "The best option I see is (B)": some words may stand between.
        rf"(?i:\b(?:answer|option|choice)\b[^.\n]{{0,40}}?(?:\s*(?:\bis\b|\bbe\b|:|=))+\s*){_NAMED}"
        rf"|{_OPTION}[)\]]? is (?i:the )?(?:correct|right|best|answer)",
        rf"^\W*(?i:(?:final )?(?:option|choice|answer)\s+)?{_OPTION}(?:[)\].:]|\s*(?:\n|$))|^\W*([A-HJ]),",
        rf"(?i:\b(?:choose|chose|pick|select|go(?:ing)? (?:with|for)|it is|it[’']s|be)\s+){_NAMED}",
        rf"{_OPTION}[\s.!)\]]*$",
        rf"[(\[]([A-J])[)\]]{_DENIED}",
        rf"(?![(\[]?I){_OPTION}(?! +[A-Z])",
    )
]


def correct(answer: str, *, reference: str, scoring: str) -> bool:
    """Whether an answer is right.

    Raises:
        ValueError: no such way to compare.
    """
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring={scoring!r} is not known; allowed: {', '.join(get_args(Scoring))}")
    if scoring == "letter":
        return _letter(answer) == reference.strip().upper()
    if scoring == "yes_no":
        said = re.search(r"\b(yes|no)\b", answer.casefold())
        return said is not None and said.group(1) == reference.strip().casefold()
    return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", answer.casefold()) for form in _forms(reference))


def _letter(answer: str) -> str | None:
    bare = _MARKS.sub("", re.sub(r"\\boxed\b", " answer: ", answer)).strip()
    for pattern in _LETTER:
        found = list(pattern.finditer(bare))
        if found:
            return next(group for group in found[-1].groups() if group)
    return None


def _forms(reference: str) -> list[str]:
    """Each line of the reference is an answer of its own, and a small number may be spelt."""
    plain = [line.strip().casefold() for line in reference.splitlines() if line.strip()]
    numbers = [int(form) for form in plain if form.isascii() and form.isdigit()]
    return [*plain, *(_NUMBERS[number] for number in numbers if number < len(_NUMBERS))]
