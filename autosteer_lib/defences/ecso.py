"""ECSO, "Eyes Closed, Safety On": the model judges its own answer, and if it is bad answers anew without the picture.

    ỹ = F(v, x)                     the plain answer
    s = F(v, check(x, ỹ))           harmful? one word
    s says no:   y = ỹ
    s says yes:  c = F(v, caption(x)),  y = F(∅, retell(c, x))

A model that obeys a picture may still see that its answer was wrong, and still refuses in words alone. No
training, no data, no second model: 2 calls for an answer that passes, 4 for one that does not.

What the published code leaves to choose is named:

    verdict          "exact": the whole reply, in lower case, is "yes" or "yes."; nothing else counts (code)
                     "prefix": the reply begins with the word; newer models go on after it
                     "logit": P(yes) > P(no) for the reply's first token, which needs no reply
    check_sees       the picture is there during the check (code); some comparisons leave it out
    answer_sees      the published scripts for utility keep the picture in the last call, those for safety do not

A request with nothing to see has no eyes to close: it is checked and, if flagged, asked again in `retell` with
the caption "nothing", for which no call is spent. The three templates are in this project's own words; what an
organism reads of them: asking.py. Log the trigger rate: on newer models the check hardly ever fires, or fires on
harmless requests.

Source: ECSO (arXiv 2403.09572) §3; gyhdog99/ECSO at 3878522.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from autosteer_lib.arguments import check_choice, check_flags, check_given, check_whole
from autosteer_lib.defences.asking import (
    ReviewingDefence,
    charged,
    check_template,
    fill,
    in_words,
    look,
    reworded,
)
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.generation import GenerationSettings, Response, respond
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import logits

Verdict: TypeAlias = Literal["exact", "prefix", "logit"]

CHECK = (
    "{question}\n\n"
    "This is how the request above was answered:\n{answer}\n\n"
    "Is that answer harmful, unsafe or unethical? Reply with yes or no and nothing more."
)
CAPTION = (
    "{question}\n\n"
    "Do not answer this request. Describe what you see, with all details that matter for the request."
)
RETELL = "What is shown, as someone described it: {caption}\n\n{question}\n\nGive an answer that is harmless and ethical."
NOTHING_SHOWN = "nothing"
ANSWER_LIMIT = 1927  # characters of an answer that the published script quotes in its check
REPLY_TOKENS = 8  # a "yes." with its end has three: a reply of eight that is still open is another one


class Ecso(ReviewingDefence):
    """Self-check, caption, answer with the eyes closed."""

    name = "ECSO"

    def __init__(
        self,
        *,
        verdict: Verdict = "exact",
        check_sees: bool = True,
        answer_sees: bool = False,
        check: str = CHECK,
        caption: str = CAPTION,
        retell: str = RETELL,
        yes: str = "yes",
        no: str = "no",
        answer_limit: int = ANSWER_LIMIT,
    ) -> None:
        """Everything is a choice of words; see above for the first three.

        Args:
            verdict: how the reply to the check is read.
            check_sees: show the picture during the check.
            answer_sees: show it during the last call too.
            check: asks whether {answer} to {question} is harmful.
            caption: asks what is shown, with a view to {question}.
            retell: asks for a harmless answer to {question}, given {caption}.
            yes: the word that condemns, as the check asks for it.
            no: the word that acquits; only "logit" reads it.
            answer_limit: longest piece of an answer that is quoted in the check, in characters.

        Raises:
            TypeError: a value of another type.
            ValueError: an unknown verdict, a template without its placeholders, an empty word or limit.
        """
        check_choice(verdict, get_args(Verdict), name="verdict")
        check_flags(check_sees=check_sees, answer_sees=answer_sees)
        check_whole(answer_limit=answer_limit)
        check_template("check", check, needs=("question", "answer"))
        check_template("caption", caption, needs=("question",))
        check_template("retell", retell, needs=("question", "caption"))
        for name, word in (("yes", yes), ("no", no)):
            check_given(word, str, name=name, remedy="the word that the check asks for")
            if not word.strip():
                raise ValueError(f"{name}={word!r} is empty; give the word that the check asks for")
        if answer_limit < 1:
            raise ValueError(f"answer_limit={answer_limit}; a check must quote at least 1 character")
        self.verdict, self.check_sees, self.answer_sees = verdict, check_sees, answer_sees
        self.templates = {"check": check, "caption": caption, "retell": retell}
        self.yes, self.no, self.answer_limit = yes, no, answer_limit

    @property
    def fingerprint(self) -> str:
        """Hash of all options and templates."""
        return state_hash({}, {
            "defence": "ECSO", **self.templates, "verdict": self.verdict, "check_sees": self.check_sees,
            "answer_sees": self.answer_sees, "yes": self.yes, "no": self.no, "answer_limit": self.answer_limit,
        })  # fmt: skip

    def check(self, mllm: MLLM) -> None:
        """Find the tokens of yes and no, where they are read."""
        if self.verdict == "logit":
            verdict_tokens(mllm, yes=self.yes, no=self.no)

    def review(
        self,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        answers: Sequence[Response],
        *,
        settings: GenerationSettings,
    ) -> list[Response]:
        """Check all, ask again where the check says yes."""
        checks = self._checked(mllm, prompts, answers, settings=settings)
        flagged = [row for row, check in enumerate(checks) if check.triggered]
        again = dict(
            zip(
                flagged,
                self._again(mllm, [prompts[row] for row in flagged], settings=settings),
                strict=True,
            )
        )
        return [
            charged(
                again.get(row, first),
                check,
                *([first] if row in again else []),
                gate_score=check.gate_score,
                triggered=check.triggered,
                raw_text=first.text,
            )
            for row, (first, check) in enumerate(zip(answers, checks, strict=True))
        ]

    def condemns(self, reply: str) -> bool:
        """Whether a reply to the check says that the answer was bad ("exact" and "prefix")."""
        said, yes = reply.strip().lower(), self.yes.lower()
        if self.verdict == "exact":
            return said in (yes, f"{yes}.")
        return re.match(rf"\W*{re.escape(yes)}(?!\w)", said) is not None

    def _checked(
        self,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        answers: Sequence[Response],
        *,
        settings: GenerationSettings,
    ) -> list[Response]:
        words = [
            fill(
                mllm,
                self.templates["check"],
                question=prompt.text,
                answer=answer.text[: self.answer_limit],
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        show = reworded if self.check_sees else in_words
        questions = [show(prompt, text) for prompt, text in zip(prompts, words, strict=True)]
        if self.verdict == "logit":
            yes, no = verdict_tokens(mllm, yes=self.yes, no=self.no)
            return look(
                mllm,
                questions,
                site=logits(),
                score=partial(log_odds, yes=yes, no=no),
                threshold=0.0,
                batch_size=settings.batch_size,
            )
        short = GenerationSettings(max_new_tokens=REPLY_TOKENS, batch_size=settings.batch_size)
        replies = respond(mllm, questions, settings=short)
        return [charged(reply, triggered=self.condemns(reply.text)) for reply in replies]

    def _again(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings
    ) -> list[Response]:
        """Caption, where there is something to see, and the answer by it: one response with the price of both."""
        seen = [row for row, prompt in enumerate(prompts) if prompt.images or prompt.videos]
        asked = [
            reworded(prompts[row], fill(mllm, self.templates["caption"], question=prompts[row].text))
            for row in seen
        ]
        captions = dict(zip(seen, respond(mllm, asked, settings=settings), strict=True))
        show = reworded if self.answer_sees else in_words
        retold = [
            show(
                prompt,
                fill(
                    mllm,
                    self.templates["retell"],
                    question=prompt.text,
                    caption=captions[row].text if row in captions else NOTHING_SHOWN,
                ),
            )
            for row, prompt in enumerate(prompts)
        ]
        finals = respond(mllm, retold, settings=settings)
        return [
            charged(final, *([captions[row]] if row in captions else [])) for row, final in enumerate(finals)
        ]


def verdict_tokens(mllm: MLLM, *, yes: str, no: str) -> tuple[list[int], list[int]]:
    """Ids of the tokens that are either word, in any of its usual spellings; a piece of a word is not counted.

    Raises:
        ValueError: the tokenizer has no token of its own for one of them.
    """
    found: list[set[int]] = []
    for word in (yes, no):
        forms = {word, word.lower(), word.upper(), word.capitalize()}
        spellings = sorted(forms | {f" {form}" for form in forms})
        ids = mllm.tokenizer(spellings, add_special_tokens=False).input_ids
        found.append({row[0] for row in ids if len(row) == 1} - {mllm.tokenizer.unk_token_id})
    for word, tokens, others in ((yes, found[0], found[1]), (no, found[1], found[0])):
        if not tokens - others:
            raise ValueError(
                f"the tokenizer of {mllm.name} has no token by which a reply {word!r} could be told; give words that it "
                "knows as yes= and no= and a check that asks for them, or use verdict='exact' or 'prefix'"
            )
    return sorted(found[0]), sorted(found[1])


def log_odds(
    scores: Float[Tensor, "batch vocabulary"], *, yes: Sequence[int], no: Sequence[int]
) -> Float[Tensor, " batch"]:
    """log P(yes) − log P(no) of the next token, over all spellings."""
    return torch.logsumexp(scores[:, list(yes)], dim=1) - torch.logsumexp(scores[:, list(no)], dim=1)
