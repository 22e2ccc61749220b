"""What fits ask the undefended model: from the records the same as anew, and asked once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosteer_lib.answerers import OneByOne
from autosteer_lib.defences import ActivationTransfer, AdaSteer, Mars, RefusalDirection
from autosteer_lib.defences.answer_detector import judged_answers
from autosteer_lib.defences.k_steering import behaviour_labels
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Verdict
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import ask_anew
from autosteer_lib.prompts import Prompt
from autosteer_lib.recorded_answers import OwnAnswersOnRecord
from tests.mars_on_tiny import ByLabel, neutral, text_sets
from tests.planted import no_model_runs

SETTINGS = GenerationSettings(max_new_tokens=3, batch_size=5)


@pytest.fixture
def on_record(tmp_path: Path) -> OwnAnswersOnRecord:
    return OwnAnswersOnRecord(records=tmp_path / "answers", answerer=OneByOne())


def test_from_the_records_they_are_what_the_model_says_anew(
    tiny: MLLM, mixed_prompts: list[Prompt], on_record: OwnAnswersOnRecord
) -> None:
    anew = ask_anew(tiny, mixed_prompts, settings=SETTINGS, progress=False)
    assert on_record(tiny, mixed_prompts, settings=SETTINGS, progress=False) == anew
    backwards = mixed_prompts[::-1]
    assert on_record(tiny, backwards, settings=SETTINGS, progress=False) == anew[::-1]


def test_the_model_is_asked_once(
    tiny: MLLM, mixed_prompts: list[Prompt], on_record: OwnAnswersOnRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_record(tiny, mixed_prompts, settings=SETTINGS, progress=False)
    with monkeypatch.context() as patch:
        no_model_runs(patch, tiny)
        twice = [*mixed_prompts, *mixed_prompts]  # what is asked counts, so ids may repeat
        assert on_record(tiny, twice, settings=SETTINGS, progress=False) == first * 2
    longer = GenerationSettings(max_new_tokens=4, batch_size=5)
    assert on_record(tiny, mixed_prompts, settings=longer, progress=False) != first


def test_a_prompt_without_an_answer_stops_the_fit(
    tiny: MLLM, mixed_prompts: list[Prompt], on_record: OwnAnswersOnRecord
) -> None:
    long = GenerationSettings(max_new_tokens=tiny.context_length, batch_size=5)
    with pytest.raises(RuntimeError, match="leaves room for"):
        on_record(tiny, mixed_prompts[:2], settings=long, progress=False)


def test_one_failed_prompt_is_named(
    tiny: MLLM, mixed_prompts: list[Prompt], on_record: OwnAnswersOnRecord
) -> None:
    on_record(tiny, mixed_prompts[:1], settings=SETTINGS, progress=False)
    many_words = Prompt(id="endless", text="knife " * 2 * tiny.context_length)
    with pytest.raises(RuntimeError, match=r"could not answer prompt 'endless' .*leave that prompt out"):
        on_record(tiny, [mixed_prompts[0], many_words], settings=SETTINGS, progress=False)


class ByHarm(ByLabel):
    """Every answer to a harmful prompt is harmful."""

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        return replace(super().__call__(prompt, answer), unsafe=bool(prompt.harmful))


def test_every_fit_reads_them(
    tiny: MLLM, on_record: OwnAnswersOnRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is asked of the undefended model is on record, so no fit generates."""
    texts = text_sets()
    every = [*texts.unsafe, *texts.safe, *texts.validation_unsafe, *texts.validation_safe]
    on_record(tiny, every, settings=SETTINGS, progress=False)

    def generates(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was asked anew")

    monkeypatch.setattr(tiny.model, "generate", generates)
    asked: dict[str, Any] = {"settings": SETTINGS, "answers": on_record, "judge": ByHarm()}
    assert behaviour_labels(tiny, texts, **asked)["refused"] == list(texts.unsafe)
    harmful, harmless = judged_answers(tiny, every, **asked)
    assert len(harmful) + len(harmless) == len(every)
    pictures, clips = neutral()
    Mars().fit(tiny, texts, pictures=pictures, clips=clips, **asked)
    ActivationTransfer(source_layer=1, target_layer=2).fit(tiny, tiny, texts, mapping_texts=every, **asked)
    through = [p.id for p in (*texts.unsafe[:6], *texts.validation_unsafe[:6])]
    ada = AdaSteer(logic_layers=(1, 2), rejection_strengths=[0.1], compliance_strengths=[0.1], fewest=4)
    ada.fit(tiny, texts, **{**asked, "judge": ByLabel(otherwise=through)})
    direction = RefusalDirection(most_kl=None, least_induced=None, keep="all", coverage=0.1)
    direction.fit(tiny, texts, **asked)
