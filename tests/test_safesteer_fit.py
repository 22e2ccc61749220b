"""SafeSteer as a fitted thing: its parts, its sign, other hyper-parameters, disk, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.decoding_probe import DecodingProbe
from autosteer_lib.defences import Mars, SafeSteer
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Verdict
from autosteer_lib.models import MLLM
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.prompts import Prompt
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.sites import final_norm
from tests.mars_on_tiny import ByLabel, answers
from tests.safesteer_on_tiny import SETTINGS, STEP, K, fit, half_open, sets

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
SHORT = GenerationSettings(max_new_tokens=2)


@pytest.fixture(scope="module")
def fitted(tiny: MLLM, mixed_prompts: list[Prompt]) -> SafeSteer:
    return half_open(fit(SafeSteer(k=K, step=STEP), tiny), tiny, mixed_prompts)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


class Says:
    """Refused where the answer is one of these."""

    name = "says"

    def __init__(self, *refusals: str) -> None:
        self.refusals = refusals

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        return Verdict(unsafe=False, refused=answer in self.refusals)


def test_fit_is_its_parts(tiny: MLLM, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    defence = SafeSteer(held_out=0.25, seed=3)
    returned = defence.fit(tiny, sets(), settings=SHORT, judge=ByLabel(), cache=tmp_path)
    assert returned is defence
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    train, kept_back = sets().split(held_out=0.25, seed=3)

    def states(prompts: tuple[Prompt, ...]) -> Tensor:
        return collect(tiny, prompts, sites=[final_norm()])[:, 0]

    images, texts, harmless = map(states, (train.image_attacks, train.text_attacks, train.harmless))
    expected = DecodingProbe(seed=3).fit(torch.cat((images, texts)), harmless)
    some = states(kept_back.attacks)
    torch.testing.assert_close(defence.probe_.score(some), expected.score(some), atol=1e-3, rtol=1e-3)
    assert defence.alignment_ is not None
    torch.testing.assert_close(defence.alignment_.image_centroid, images.mean(0), **CLOSE)
    torch.testing.assert_close(defence.alignment_.text_centroid, texts.mean(0), **CLOSE)
    check = defence.check_
    assert (check.attacks, check.harmless) == (len(kept_back.attacks), len(kept_back.harmless))
    judged = (defence.score(tiny, kept_back.attacks) > 0.5).sum()
    assert check.attacks_judged_harmful == int(judged)
    assert (check.refused_plain, check.refused_high, check.refused_low) == (check.attacks,) * 3
    assert defence.sign_ == 1  # no difference: as eq. 6 has it


@pytest.mark.parametrize("better", ["high", "low"])
def test_the_sign_is_the_one_under_which_held_out_attacks_are_refused(tiny: MLLM, better: Any) -> None:
    """What one sign makes the model say is declared a refusal."""
    forced = SafeSteer(
        k=K, step=STEP, align=False, reading=SafeSteerReading(sign=better, gate="always"), held_out=0.5
    )
    forced.fit(tiny, sets(), settings=SHORT, judge=ByLabel())
    held_out = sets().split(held_out=0.5, seed=0)[1].attacks
    said = {r.text for r in forced.respond(tiny, held_out, settings=SHORT)}
    other = forced.retuned(
        reading=SafeSteerReading(sign="low" if better == "high" else "high", gate="always")
    )
    not_said = said - {r.text for r in other.respond(tiny, held_out, settings=SHORT)}
    defence = SafeSteer(k=K, step=STEP, held_out=0.5).fit(tiny, sets(), settings=SHORT, judge=Says(*not_said))
    counts = {"high": defence.check_.refused_high, "low": defence.check_.refused_low}
    assert counts[better] > 0
    assert counts["low" if better == "high" else "high"] == 0
    assert defence.sign_ == {"high": 1, "low": -1}[better]
    assert defence.retuned(reading=SafeSteerReading(sign="high")).sign_ == 1
    assert defence.retuned(reading=SafeSteerReading(sign="low")).sign_ == -1


def test_attacks_in_words_alone_are_enough_without_the_alignment_vector(tiny: MLLM) -> None:
    only = ProbeSets(text_attacks=sets().text_attacks, harmless=sets().harmless)
    defence = SafeSteer(align=False).fit(tiny, only, settings=SHORT, judge=ByLabel())
    assert defence.alignment_ is None
    with pytest.raises(ValueError, match=r"without attacks in pictures or in words.*leave align=False"):
        defence.retuned(align=True)


def test_what_cannot_be_fitted_is_refused_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    some = sets()
    one_class = {"image_attacks": (), "text_attacks": ()}
    with pytest.raises(ValueError, match="image_attacks is empty, and the alignment vector"):
        fit_on(tiny, replace(some, image_attacks=()))
    with pytest.raises(ValueError, match=r"text_attacks is empty.*SafeSteer\(align=False\)"):
        fit_on(tiny, replace(some, text_attacks=()))
    with pytest.raises(ValueError, match=r"0 harmful and 10 harmless prompts: a probe .* needs both"):
        fit_on(tiny, replace(some, **one_class), align=False)
    with pytest.raises(ValueError, match=r"12 harmful and 0 harmless prompts: a probe .* needs both"):
        fit_on(tiny, replace(some, harmless=()))
    few = replace(some, **{k: getattr(some, k)[:2] for k in (*one_class, "harmless")})
    with pytest.raises(ValueError, match="2 harmful and 1 harmless prompts span at most 2 directions"):
        fit_on(tiny, few)
    vocabulary = tiny.unembedding.shape[0]
    with pytest.raises(
        ValueError, match=rf"k = {vocabulary + 1} candidates and tiny has {vocabulary} tokens"
    ):
        fit_on(tiny, some, k=vocabulary + 1)
    monkeypatch.setattr(tiny.model.generation_config, "use_cache", False)
    with pytest.raises(ValueError, match=r"tiny of the family .* without a cache of keys and values"):
        fit_on(tiny, some)


def fit_on(mllm: MLLM, some: ProbeSets, **hyperparameters: Any) -> SafeSteer:
    return SafeSteer(**hyperparameters).fit(mllm, some, settings=SHORT, judge=ByLabel())


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k = 0 candidates; give at least 1"),
        ({"k": -3}, "k = -3 candidates"),
        ({"step": 0}, r"step = 0 re-ranks no token; .* rerank=False"),
        ({"threshold": 1.5}, r"threshold = 1.5 is outside \[0, 1\]"),
        ({"threshold": float("nan")}, "threshold = nan"),
        ({"rerank": False, "align": False}, "leave nothing of SafeSteer; take Undefended"),
        ({"held_out": 1.0}, "held_out = 1.0 must be a share"),
    ],
)
def test_hyper_parameters_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SafeSteer(**changes)


def test_all_of_the_vocabulary_may_be_candidates(tiny: MLLM, fitted: SafeSteer, encoded: Encoded) -> None:
    all_of_it = fitted.retuned(k=tiny.unembedding.shape[0], step=1)
    assert len(all_of_it.answer(tiny, encoded, settings=SHORT)) == 7


def test_it_is_refused_before_it_is_fitted_and_on_another_model(
    tiny: MLLM, other_tiny: MLLM, fitted: SafeSteer, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    unfitted = SafeSteer()
    batch = encode(tiny, mixed_prompts[:2])
    for use in (
        lambda: unfitted.answer(tiny, batch, settings=SHORT),
        lambda: unfitted.score(tiny, mixed_prompts),
        lambda: unfitted.retuned(k=2),
        lambda: unfitted.fingerprint,
        lambda: unfitted.save(tmp_path),
        lambda: unfitted.sign_,
    ):
        with pytest.raises(NotFittedError, match=r"call fit\(mllm, sets\), or SafeSteer.load"):
            use()
    with pytest.raises(ValueError, match=r"was fitted on tiny .* and the model at hand is other"):
        fitted.answer(other_tiny, encode(other_tiny, mixed_prompts[:2]), settings=SHORT)
    with pytest.raises(ValueError, match="was fitted on tiny"):
        fitted.score(other_tiny, mixed_prompts[:2])


def test_retuned_shares_the_fit_and_what_the_fit_has_used_stays(fitted: SafeSteer) -> None:
    fingerprint = fitted.fingerprint
    other = fitted.retuned(k=2, step=7, threshold=0.25)
    assert (other.k, other.step, other.threshold) == (2, 7, 0.25)
    assert other.probe_ is fitted.probe_
    assert fitted.fingerprint == fingerprint
    reading = fitted.reading
    for changes, name in (
        ({"reading": replace(reading, norm="pre")}, "norm = 'pre'"),
        ({"reading": replace(reading, solver="rds")}, "solver = 'rds'"),
        ({"held_out": 0.4}, "held_out = 0.4"),
    ):
        with pytest.raises(ValueError, match=f"{name} needs a fit of its own"):
            fitted.retuned(**changes)


def test_saved_and_loaded_it_gives_the_same_answers(
    tiny: MLLM, other_tiny: MLLM, fitted: SafeSteer, encoded: Encoded, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "safesteer")
    loaded = SafeSteer.load(tmp_path / "safesteer", tiny)
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.check_ == fitted.check_
    assert loaded._hyperparameters() == fitted._hyperparameters()
    expected = answers(fitted.answer(tiny, encoded, settings=SETTINGS))
    assert answers(loaded.answer(tiny, encoded, settings=SETTINGS)) == expected
    with pytest.raises(ValueError, match="was fitted on tiny"):
        SafeSteer.load(tmp_path / "safesteer", other_tiny)
    with pytest.raises(ValueError, match=r"holds a state of SafeSteer, not of MARS"):
        Mars.load(tmp_path / "safesteer", tiny)


def test_a_recipe_with_epochs_and_no_alignment_vector_survive_the_disk(tiny: MLLM, tmp_path: Path) -> None:
    only = ProbeSets(text_attacks=sets().text_attacks, harmless=sets().harmless)
    defence = SafeSteer(align=False, reading=SafeSteerReading(solver="rds"))
    defence.fit(tiny, only, settings=SHORT, judge=ByLabel()).save(tmp_path)
    loaded = SafeSteer.load(tmp_path, tiny)
    assert loaded.probe_.losses_ == defence.probe_.losses_
    assert len(loaded.probe_.losses_) > 3
    assert loaded.alignment_ is None
    assert loaded.fingerprint == defence.fingerprint


def test_the_fingerprint_changes_with_all_that_an_answer_depends_on_and_nothing_else(
    fitted: SafeSteer,
) -> None:
    reading = fitted.reading
    other_probe = fitted.retuned()
    tensors = {**fitted.probe_.tensors, "bias": fitted.probe_.bias_ + 1}
    other_probe._adopt(
        probe=DecodingProbe.from_tensors(tensors, losses=(), **fitted.probe_.hyperparameters),
        alignment=fitted.alignment_,
        check=fitted.check_,
        fitted_on=fitted.fitted_on_,
    )
    drawn = fitted.retuned(reading=replace(reading, choice="drawn"))
    variants = [
        fitted,
        other_probe,
        fitted.retuned(k=2),
        fitted.retuned(step=3),
        fitted.retuned(threshold=0.3),
        fitted.retuned(rerank=False),
        fitted.retuned(align=False),
        fitted.retuned(reading=replace(reading, sign="low")),
        fitted.retuned(reading=replace(reading, gate="always")),
        fitted.retuned(reading=replace(reading, direction="as_printed")),
        fitted.retuned(reading=replace(reading, scale="as_printed")),
        drawn,
        drawn.retuned(seed=1),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    same = [
        fitted.retuned(seed=1),  # nothing is drawn
        fitted.retuned(reading=replace(reading, sign="high")),  # as the check found
    ]
    assert fitted.sign_ == 1
    assert {variant.fingerprint for variant in same} == {fitted.fingerprint}
    unaligned = fitted.retuned(align=False)
    printed = unaligned.retuned(reading=replace(reading, scale="as_printed"))
    assert printed.fingerprint == unaligned.fingerprint
