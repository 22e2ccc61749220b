"""Every defence, fitted for one study: on prompts of the fit split alone, and kept like the others.

Texts are the same for all that take texts (MARS' own), with role-plays where a method needs unsafe texts that get
through. `transfer` takes a second study, whose model lends its direction.
"""

from __future__ import annotations

from dataclasses import replace

from autosteer_lib.defences import (
    ActivationTransfer,
    AdaSteer,
    AnswerDetector,
    Cast,
    KSteering,
    RefusalDirection,
)
from autosteer_lib.defences.answer_detector import judged_answers
from autosteer_lib.defences.k_steering import behaviour_labels
from autosteer_lib.directions import TextCentroids
from autosteer_lib.judges import Judge, Verdict
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_sweeps import encode_once, last_before_fall, steering_reach
from autosteer_lib.study.compared_data import ComparedData
from autosteer_lib.study.compared_words import words_for
from autosteer_lib.study.study import Study
from autosteer_lib.text_sets import FEWEST, TextSets, keep_by_behaviour

_SECTIONS = {"generation", "head"}  # of the profile: what these fits read of it besides their prompts


def refusal_direction(study: Study) -> RefusalDirection:
    """Fitted on MARS' texts, without the test that is of the ablation alone.

    It asks that the *ablation* change harmless answers little. The direction is added here; and in the organism none
    passes both tests.
    """
    texts = study.text_data.texts
    return study.kept(
        "refusal-direction",
        RefusalDirection.load,
        lambda: RefusalDirection(most_kl=None, fewest=_fewest(study)).fit(
            study.mllm, texts, settings=study.settings, judge=study.fit_judge, answers=study.own_answers
        ),
        profile=_SECTIONS,
        prompts=_all(texts),
    )


def adasteer(study: Study, data: ComparedData) -> AdaSteer:
    """Fitted on texts with role-plays among them; the heights of its lines are 1, to be set by `retuned`."""
    return study.kept(
        "adasteer",
        AdaSteer.load,
        lambda: AdaSteer(
            rejection_strengths=(1.0,), compliance_strengths=(1.0,), fewest=_fewest(study) // 2
        ).fit(
            study.mllm, data.texts, settings=study.settings, judge=study.fit_judge, answers=study.own_answers
        ),
        profile=_SECTIONS,
        prompts=_all(data.texts),
    )


def cast(study: Study) -> Cast:
    """Fitted on MARS' texts; what it is to say is the profile's refusal, what it is not the way it complies."""
    texts, refusal = study.text_data.texts, study.profile.head.refusal_text
    compliance = words_for(study.profile).complies
    return study.kept(
        "cast",
        Cast.load,
        lambda: Cast().fit(
            study.mllm,
            texts,
            refusal_text=refusal,
            compliance_text=compliance,
            batch_size=study.settings.batch_size,
        ),
        profile=_SECTIONS,
        prompts=_all(texts),
        compliance=compliance,
    )


def k_steering(study: Study) -> KSteering:
    """Fitted on MARS' texts, labelled by what the model does with them."""
    texts, mllm = study.text_data.texts, study.mllm

    def fit() -> KSteering:
        labels = behaviour_labels(
            mllm,
            texts,
            settings=study.settings,
            judge=study.fit_judge,
            fewest=_fewest(study),
            answers=study.own_answers,
        )
        return KSteering(seed=study.seed).fit(mllm, labels, batch_size=study.settings.batch_size)

    return study.kept("k-steering", KSteering.load, fit, profile=_SECTIONS, prompts=_all(texts))


def answer_detector(study: Study, data: ComparedData) -> AnswerDetector:
    """Fitted on the model's own answers to AutoSteer's pairs and MARS' texts.

    An answer to a harmful request counts as harmful unless it is a refusal: what a longer answer would have carried out
    a short one has begun.
    """
    mllm, settings = study.mllm, study.settings

    def fit() -> AnswerDetector:
        harmful, harmless = judged_answers(
            mllm,
            data.exchanges,
            judge=_Unrefused(study.fit_judge),
            settings=settings,
            answers=study.own_answers,
        )
        states = study.artefacts.build / "states"
        return AnswerDetector(seed=study.seed).fit(
            mllm, harmful, harmless, batch_size=settings.batch_size, cache=states
        )

    return study.kept("answer-detector", AnswerDetector.load, fit, profile=_SECTIONS, prompts=data.exchanges)


def transfer(study: Study, source: Study, data: ComparedData) -> ActivationTransfer:
    """The direction of another study's model, mapped into this one's by the states of the same texts.

    Layers are the last ones at which each model's own mean difference still makes it refuse, as in the paper.
    """
    texts, settings = study.text_data.texts, study.settings

    def fit() -> ActivationTransfer:
        return ActivationTransfer(
            source_layer=_last_layer(source), target_layer=_last_layer(study), gate="none", fewest=_fewest(study),
            seed=study.seed,
        ).fit(
            source.mllm, study.mllm, texts, mapping_texts=_all(data.texts), settings=settings, judge=study.fit_judge,
            answers=study.own_answers, cache=study.artefacts.build / "states",
        )  # fmt: skip

    return study.kept(
        "activation-transfer",
        ActivationTransfer.load,
        fit,
        profile=_SECTIONS,
        prompts=_all(data.texts),
        source=source.mllm.fingerprint,
    )


def _last_layer(study: Study) -> int:
    texts, mllm, size = study.text_data.texts, study.mllm, study.settings.batch_size
    refused, accepted = keep_by_behaviour(
        mllm,
        texts,
        settings=study.settings,
        judge=study.fit_judge,
        fewest=_fewest(study),
        answers=study.own_answers,
    )
    vectors = TextCentroids.of(study.outputs(refused), study.outputs(accepted)).difference
    reach = steering_reach(
        mllm,
        vectors,
        harmless=encode_once(mllm, texts.validation_safe, batch_size=size),
        tokens=refusal_direction(study).refusal_tokens_,
    )
    return last_before_fall(reach)


class _Unrefused:
    """Calls harmful what answers a harmful request and is no refusal."""

    name = "unrefused"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        """Judge one answer."""
        verdict = self._judge(prompt, answer)
        return replace(verdict, unsafe=bool(prompt.harmful) and not verdict.refused)


def _fewest(study: Study) -> int:
    """As in each method, less where a profile has hardly any texts."""
    return min(FEWEST, study.profile.mars.validation)


def _all(texts: TextSets) -> tuple[Prompt, ...]:
    return (*texts.unsafe, *texts.safe, *texts.validation_unsafe, *texts.validation_safe)
