"""CoCA, constitutional calibration: what a safety principle in the prompt changes in the logits, amplified.

    l_s = logits(v, principle + x, y_<t)        l_0 = logits(v, x, y_<t)
    l*  = l_s + α (l_s − l_0)                   anchor "principled":  (1 + α) l_s − α l_0
    l*  = l_0 + α (l_s − l_0)                   anchor "plain"

The same algebra as classifier-free guidance. The notes on the paper do not settle which of the two logits it
anchors on; they differ by one unit of α, and a third-party implementation (OmniSafeBench-MM) has the first, α = 4.

Both prompts are rows of ONE left-padded batch of 2B, with a cache row each. An edit of the logits puts l* into both
rows, so the same token wins in both and each stream reads what the other says: no decoding loop of its own, and
positions, pictures and ends are those of any batch. Price: two streams, twice the arithmetic and the cache.

l* is handed on less its largest entry. Softmax and argmax do not notice, and the winner, then at 0, cannot be lost
when a wide range is rounded to half precision. Logits are those of the unembedding.

Source: CoCA (arXiv 2409.11365); no official code was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.arguments import check_numbers
from autosteer_lib.defences.asking import charged, check_template, fill, reworded
from autosteer_lib.defences.base import Defence
from autosteer_lib.encoding import Encoded, batch_rows, encode
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.generation import GenerationSettings, Response, generate
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site, logits

Anchor: TypeAlias = Literal["principled", "plain"]

ALPHA = 4.0  # default of OmniSafeBench-MM; the paper's own value was not found
PRINCIPLE = (
    "You never help with anything that is illegal, unethical or dangerous, in words or in pictures. "
    "Your answers do no harm to anyone.\n\n{question}"
)


class Coca(Defence):
    """Two prompts, one answer."""

    name = "CoCA"

    def __init__(
        self, *, alpha: float = ALPHA, principle: str = PRINCIPLE, anchor: Anchor = "principled"
    ) -> None:
        """Set the strength and the words.

        Args:
            alpha: α; 0 is the prompt with the principle alone, or the plain one, as the anchor says.
            principle: what the assistant may not do, with {question} where the user's words go.
            anchor: which logits α (l_s − l_0) is added to.

        Raises:
            ValueError: α negative or not finite, an unknown anchor, or a principle without {question}.
        """
        check_numbers(alpha=alpha)
        if alpha < 0:
            raise ValueError(
                f"alpha={alpha}; give 0 or more: a negative one would steer away from the principle"
            )
        if anchor not in get_args(Anchor):
            raise ValueError(
                f"anchor={anchor!r} is not known; allowed are {', '.join(map(repr, get_args(Anchor)))}"
            )
        check_template("principle", principle, needs=("question",))
        self.alpha, self.principle, self.anchor = alpha, principle, anchor

    @property
    def fingerprint(self) -> str:
        """Hash of α, principle and anchor."""
        settings = {"alpha": self.alpha, "principle": self.principle, "anchor": self.anchor}
        return state_hash({}, {"defence": "CoCA", **settings})

    @property
    def weights(self) -> tuple[float, float]:
        """Factors of l_s and l_0."""
        principled = self.alpha + (1.0 if self.anchor == "principled" else 0.0)
        return principled, 1.0 - principled

    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        """Answer any number of prompts, in their order; a batch holds twice as many rows as answers."""
        found: dict[int, Response] = {}
        with tqdm(total=len(prompts), desc="answers", disable=not progress) as bar:
            for rows in batch_rows(mllm, prompts, batch_size=settings.batch_size):
                answers = self._batch(mllm, [prompts[row] for row in rows], settings=settings)
                found.update(zip(rows, answers, strict=True))
                bar.update(len(rows))
        return [found[index] for index in range(len(prompts))]

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        """Answer the prompts of one batch, in one batch of two streams."""
        return self._batch(mllm, encoded.prompts, settings=settings)

    def streams(self, mllm: MLLM, prompts: Sequence[Prompt]) -> Encoded:
        """Rows 0 … B − 1 with the principle, rows B … 2B − 1 without."""
        principled = [reworded(p, fill(mllm, self.principle, question=p.text)) for p in prompts]
        return encode(mllm, [*principled, *prompts])

    def contrast(self) -> TwoStreams:
        """Fresh edits for one batch of `streams`."""
        return TwoStreams(*self.weights)

    def _batch(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings
    ) -> list[Response]:
        both = generate(mllm, self.streams(mllm, prompts), settings=settings, steering=self.contrast())
        principled, plain = both[: len(prompts)], both[len(prompts) :]
        # Equal logits, so equal words; anything else would be two answers that ran apart.
        assert [answer.text for answer in principled] == [answer.text for answer in plain]
        return [charged(*streams) for streams in zip(principled, plain, strict=True)]


class TwoStreams:
    """Gives the rows of both streams the same logits, at every step; see `generation.Steering`."""

    gate_score: Float[Tensor, " batch"] | None = None
    triggered: Bool[Tensor, " batch"] | None = None

    def __init__(self, principled: float, plain: float) -> None:
        self._principled, self._plain = principled, plain
        self._checked = False

    def edits(self) -> Mapping[Site, Edit]:
        """Write after the unembedding."""
        return {logits(): self._write}

    def bind(self, attachment: Attachment) -> None:
        """Nothing to detach: it is on for the whole answer."""

    def _write(
        self, scores: Float[Tensor, "streams tokens vocabulary"]
    ) -> Float[Tensor, "streams tokens vocabulary"]:
        principled, plain = scores[:, -1:].float().chunk(2)
        mixed = self._principled * principled + self._plain * plain
        mixed = mixed - mixed.amax(dim=-1, keepdim=True)
        if not self._checked:  # the one question to the device, in the prefill
            self._checked = True
            if not bool(mixed.isfinite().all()):
                raise ValueError(
                    f"{self._principled:g} l_s − {-self._plain:g} l_0 is not finite: the logits overflowed or are broken; "
                    "load the model in bfloat16 or float32, or lower alpha"
                )
        last = mixed.to(scores.dtype).repeat(2, 1, 1)
        return last if scores.shape[1] == 1 else torch.cat((scores[:, :-1], last), dim=1)
