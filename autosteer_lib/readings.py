"""Readings: where AutoSteer's paper and its published code differ, and which side an experiment takes.

`Reading()` follows the paper, `Reading.official_code()` the code (zjunlp/AutoSteer at 4bf034e). Each
field is one difference that can be switched; `DIFFERENCES` lists all of them, with those that no
switch can settle, for the notebooks and the README to show.

Where the paper is silent, the default is what a careful reader would do (all layers are candidates,
the epoch is chosen on held-out pairs, the prompt ends where the answer begins).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.arguments import check_given, check_whole
from autosteer_lib.epoch_choice import Checkpoint
from autosteer_lib.prober_training import ProberOutput
from autosteer_lib.prompts import Prompt
from autosteer_lib.sas import CandidateRule

GateComparison = Literal[">=", ">"]
HeadSupervision = Literal["refusal", "question_and_refusal"]

TOXIC_IMAGE_SURFACE = "image"  # the surface whose prompts are harmful by their picture alone


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One named option for each difference that can be switched."""

    prober_output: ProberOutput = "sigmoid"
    """"softmax2": two outputs and the softmax applied twice in training."""
    gate_comparison: GateComparison = ">="
    """How the score is held against the threshold."""
    candidate_layers: CandidateRule = "all"
    """Among which layers SAS chooses; the code looks at "multiples_of_4"."""
    head_supervision: HeadSupervision = "refusal"
    """What the Refusal Head learns to say; the code also teaches it the harmful question."""
    refusal_text: str = "I am sorry, but I can't assist with that."
    add_generation_prompt: bool = True
    """Whether the prompt ends with the assistant's header, and so which token is probed. The model must
    have been loaded with the same value."""
    prober_checkpoint: Checkpoint = "held_out"
    """Which epoch's prober is used; the code's is fixed, without a rule."""
    head_checkpoint: Checkpoint = "held_out"
    """The same for the Refusal Head."""
    toxic_image_rows: int | None = None
    """How many toxic-image prompts the head is trained on; None: all that are given (paper: the whole set of 3000)."""
    image_query: str | None = None
    """One sentence asked about every toxic picture; None: each picture's own question."""
    double_cosine: bool = False
    """Whether the heat-maps show the cosine of the cosine's rows (read by `sas.contrast_cosines`)."""

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"reading {name} = {getattr(self, name)!r}; allowed are {', '.join(map(repr, allowed))}"
                )
        if self.toxic_image_rows is not None:
            check_whole(toxic_image_rows=self.toxic_image_rows)
        check_given(self.refusal_text, str, name="reading refusal_text", remedy="the words of the refusal")
        remedy = "one question, or None for each picture's own"
        check_given(self.image_query, (str, NoneType), name="reading image_query", remedy=remedy)
        if self.toxic_image_rows is not None and self.toxic_image_rows < 0:
            raise ValueError(
                f"reading toxic_image_rows = {self.toxic_image_rows}; use 0 or more, or None for all that are given"
            )
        if not self.refusal_text.strip() or (self.image_query is not None and not self.image_query.strip()):
            raise ValueError(
                "reading: refusal_text and image_query must have words in them (image_query=None keeps each picture's own)"
            )

    @classmethod
    def official_code(cls, **changes: Any) -> "Reading":
        """The published code's side of every difference; `changes` adapts it to other data or shorter training."""
        code = cls(
            prober_output="softmax2",
            gate_comparison=">",
            candidate_layers="multiples_of_4",
            head_supervision="question_and_refusal",
            refusal_text="I'm sorry, but I can't assist with that.",
            add_generation_prompt=False,
            prober_checkpoint=37,  # LLaVA-OneVision, layer 20; Chameleon's is 100
            head_checkpoint=12,
            toxic_image_rows=1000,
            image_query="Please describe the given picture with details.",
            double_cosine=True,
        )
        return replace(code, **changes)

    def opens(self, score: Float[Tensor, " rows"], *, threshold: float) -> Bool[Tensor, " rows"]:
        """Whether each score opens the gate."""
        return score >= threshold if self.gate_comparison == ">=" else score > threshold

    def image_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts, toxic pictures asked about in this reading's one sentence if it has one.

        To be applied to training and to test prompts alike: the code asks it of both.
        """
        if self.image_query is None:
            return list(prompts)
        return [
            replace(prompt, text=self.image_query) if prompt.surface == TOXIC_IMAGE_SURFACE else prompt
            for prompt in prompts
        ]

    def head_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """What the Refusal Head is trained on: every prompt, but only so many toxic pictures (the first ones).

        Raises:
            ValueError: fewer toxic pictures than the reading asks for.
        """
        pictures = [index for index, prompt in enumerate(prompts) if prompt.surface == TOXIC_IMAGE_SURFACE]
        wanted = len(pictures) if self.toxic_image_rows is None else self.toxic_image_rows
        if wanted > len(pictures):
            raise ValueError(
                f"the reading trains the head on {wanted} prompts of surface {TOXIC_IMAGE_SURFACE!r} "
                f"and {len(pictures)} were given; give more, or set toxic_image_rows (None takes all)"
            )
        dropped = set(pictures[wanted:])
        return self.image_prompts([prompt for index, prompt in enumerate(prompts) if index not in dropped])


_ALLOWED: dict[str, tuple[object, ...]] = {
    "prober_output": ("sigmoid", "softmax2"),
    "gate_comparison": (">=", ">"),
    "candidate_layers": ("all", "multiples_of_4"),
    "head_supervision": ("refusal", "question_and_refusal"),
    "add_generation_prompt": (True, False),
    "double_cosine": (True, False),
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One place where paper and code part, or where a result deserves a second look."""

    number: int
    what: str
    paper: str
    code: str
    options: tuple[str, ...] = ()
    """Fields of `Reading` that switch it; empty where nothing here can."""
    measurable: str
    """What this project can measure of it."""


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        number=1,
        what="toxic pictures in the head's training set",
        paper="3000 (§4.2)",
        code="1000",
        options=("toxic_image_rows",),
        measurable="yes: train the head on fewer",
    ),
    Difference(
        number=2,
        what="question asked about a toxic picture",
        paper="one written for each picture (A.4)",
        code="one constant sentence, in training and in the test; no harmless picture is ever tested with it",
        options=("image_query",),
        measurable="yes, with the false positives on harmless pictures asked the same",
    ),
    Difference(
        number=3,
        what="prober's output and loss",
        paper="one sigmoid output (eq. 10)",
        code="two outputs through a softmax, then a cross-entropy that applies softmax again",
        options=("prober_output",),
        measurable="yes: curves and gate errors of both",
    ),
    Difference(
        number=4,
        what="gate at the threshold; wording of the refusal",
        paper="s ≥ τ; “I am sorry, …”",
        code="s > τ; “I'm sorry, …”",
        options=("gate_comparison", "refusal_text"),
        measurable="the gate: only where a score equals τ; the wording: yes",
    ),
    Difference(
        number=5,
        what="tokens that the head learns to say",
        paper="the refusal",
        code="the harmful question too: only what precedes it, up to the last image token, is masked",
        options=("head_supervision",),
        measurable="yes",
    ),
    Difference(
        number=6,
        what="layer of the prober",
        paper="the one that SAS selects",
        code="the command's layer is stored under a name that the model never reads; LLaVA always probes 20",
        measurable="no switch: `AutoSteer(layer=…)` is the layer that is read, and tests hold it to that",
    ),
    Difference(
        number=7,
        what="question text of MMMU",
        paper="question, options, and a request for the letter",
        code="only the words between the first image tag and the next reach LLaVA: a question before it is lost, options "
        "after a second one too, and all words where no tag is",
        measurable="no: here every word is encoded; take the reported 48.4 as measured under that fault",
    ),
    Difference(
        number=8,
        what="running the published scripts",
        paper="–",
        code="they stop: a misspelt call, a missing constant, paths that differ between scripts",
        measurable="no: this library is written anew; the code's formulas serve as oracles in its tests",
    ),
    Difference(
        number=9,
        what="cosine of the heat-maps (Fig. 5, 11, 12)",
        paper="cosine of the contrast vectors",
        code="cosine of the rows of that matrix; the first commit took it once",
        options=("double_cosine",),
        measurable="yes: both maps of one layer",
    ),
    Difference(
        number=10,
        what="prober inside the language model",
        paper="–",
        code="its weights must be loaded again after the model's: as a submodule it counts as missing and is initialised",
        measurable="no switch: here the prober is no part of the model, and a loaded state is checked",
    ),
    Difference(
        number=11,
        what="claims about Chameleon",
        paper="Steer beats AutoSteer “marginally” on pictures (29.3 and 43.7 %); SAS picks layer 24, E.1 finds 16 best",
        code="the base model is Anole, whose utility of 6 % leaves nothing to lose",
        measurable="SAS against probing accuracy at every layer: yes",
    ),
    Difference(
        number=12,
        what="epochs used in the tests, and overlap with training",
        paper="not stated; no test picture in training (§4.2)",
        code="prober 37 (LLaVA) and 100 (Chameleon), head 12, without a rule; "
        "95 of 500 VLSafe questions and 47 of 500 text+image pictures recur",
        options=("prober_checkpoint", "head_checkpoint"),
        measurable="the rule: yes; here no test prompt is in any training set",
    ),
    Difference(
        number=13,
        what="limits that the authors name",
        paper="attacks unlike the training set, calibration for each model, polarised scores, ε not monotone",
        code="–",
        measurable="yes: unseen surfaces, score distributions, the sweep over ε",
    ),
    Difference(
        number=14,
        what="AutoSteer as a baseline of others",
        paper="–",
        code="–; an aggregator lists rows of other papers (XSTest over-refusal 62.4, MM-SafetyBench ASR 15.2, …)",
        measurable="over-refusal on borderline prompts: yes; those rows: no",
    ),
    Difference(
        number=15,
        what="candidate layers",
        paper="silent; Fig. 4 shows multiples of four",
        code="multiples of four, beginning at 4",
        options=("candidate_layers",),
        measurable="yes: SAS at every layer",
    ),
    Difference(
        number=16,
        what="token that is probed",
        paper="silent",
        code="last of a prompt without the assistant's header (LLaVA: the end of the user's turn)",
        options=("add_generation_prompt",),
        measurable="yes: load the model with add_generation_prompt=False",
    ),
)
"""Numbers 1–14 are paper against code and weak points of the results; 15 and 16 are choices on which the paper is silent."""
