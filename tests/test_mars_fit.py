"""MARS as a fitted thing: its parts, its choice of a layer, other hyper-parameters, disk, and what it refuses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.defences import Mars
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.layer_scores import LayerScores, layer_scores
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from tests.mars_on_tiny import LAYER, SETTINGS, ByLabel, answers, fit, neutral, outputs, text_sets

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> Mars:
    return fit(Mars(layer=LAYER), tiny)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


def test_fit_is_its_parts(tiny: MLLM, tmp_path: Path) -> None:
    sets, (pictures, clips) = text_sets(), neutral()
    answered = ByLabel(otherwise=[p.id for p in (*sets.unsafe[:1], *sets.safe[4:6])])
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    defence = Mars(reading=MarsReading(candidates="all", separability="as_printed"), fewest=10)
    returned = defence.fit(
        tiny, sets, pictures=pictures, clips=clips, settings=SETTINGS, judge=answered, cache=tmp_path
    )
    assert returned is defence
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())

    def states(prompts: Sequence[Prompt]) -> Tensor:
        return collect(tiny, prompts, sites=[resid_post(layer) for layer in range(tiny.layers)])

    refused, accepted = states(sets.unsafe[1:]), states([*sets.safe[:4], *sets.safe[6:]])
    centroids = defence.centroids_
    torch.testing.assert_close(centroids.refused, refused.mean(0), **CLOSE)
    torch.testing.assert_close(centroids.accepted, accepted.mean(0), **CLOSE)
    torch.testing.assert_close(centroids.pooled, torch.cat((refused, accepted)).mean(0), **CLOSE)
    assert (centroids.refusals, centroids.acceptances) == (11, 10)
    torch.testing.assert_close(defence.neutral_["image"], states(pictures).mean(0), **CLOSE)
    torch.testing.assert_close(defence.neutral_["video"], states(clips).mean(0), **CLOSE)
    expected = layer_scores(
        centroids,
        unsafe=states(sets.validation_unsafe),
        safe=states(sets.validation_safe),
        separability="as_printed",
    )
    for name in ("consistency", "separability", "margin"):
        torch.testing.assert_close(getattr(defence.scores_, name), getattr(expected, name), **CLOSE)
    assert defence.candidates == (0, 1, 2, 3)
    assert defence.layer_ == expected.select([0, 1, 2, 3])
    assert defence.retuned(reading=MarsReading(separability="as_printed")).candidates == (2,)


def test_the_layer_is_chosen_by_the_scores_and_readings_that_are_asked_for(fitted: Mars) -> None:
    scores = LayerScores(
        consistency=torch.tensor([0.0, 1.0, 0.0, 0.0]),
        separability=torch.tensor([0.0, 0.0, 1.0, 0.0]),
        margin=torch.tensor([10.0, 6.0, 7.0, 0.0]),
    )
    everywhere = MarsReading(candidates="all")
    mars = Mars(reading=everywhere)._adopt(
        centroids=fitted.centroids_, scores=scores, neutral=fitted.neutral_, fitted_on=fitted.fitted_on_
    )
    assert mars.layer_ == 2
    assert mars.retuned(without=["separability"]).layer_ == 1
    assert mars.retuned(without=["consistency", "separability"]).layer_ == 0
    assert mars.retuned(reading=replace(everywhere, scaling="none")).layer_ == 0
    assert mars.retuned(reading=MarsReading()).layer_ == 2  # all that "upper" leaves of four
    assert mars.retuned(reading=replace(everywhere, candidates="plotted")).layer_ == 3
    assert mars.retuned(layer=1).layer_ == 1


def test_what_cannot_be_fitted_is_refused_before_the_model_runs(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.model), "forward", None)
    (pictures, clips), sets = neutral(), text_sets()
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=rf"layer {layer} does not exist; tiny has layers 0…3; pick one"):
            fit(Mars(layer=layer), tiny)
    with pytest.raises(ValueError, match="pictures is empty"):
        Mars().fit(tiny, sets, pictures=())
    with pytest.raises(
        ValueError, match=r"pictures holds prompt 'short' of modality 'text'.*neutral_pictures"
    ):
        Mars().fit(tiny, sets, pictures=[*pictures, mixed_prompts[0]])
    with pytest.raises(ValueError, match=r"clips holds prompt 'neutral/picture/0/0000' of modality 'image'"):
        Mars().fit(tiny, sets, pictures=pictures, clips=[*clips, pictures[0]])
    with pytest.raises(ValueError, match="12 unsafe and 12 safe texts were given; at least 13"):
        fit(Mars(fewest=13), tiny)


@pytest.mark.usefixtures("as_a_user")
def test_hyper_parameters_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"without=\['margins'\]"):
        Mars(without=["margins"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one must remain"):
        Mars(without=["consistency", "separability", "margin"])
    with pytest.raises(ValueError, match="fewest = 0"):
        Mars(fewest=0)


def test_a_layer_without_a_direction_is_never_chosen_and_cannot_be_asked_for(
    tiny: MLLM, fitted: Mars
) -> None:
    centroids = replace(fitted.centroids_, refused=fitted.centroids_.refused.clone())
    centroids.refused[[1, 3]] = centroids.accepted[[1, 3]]
    parts: dict[str, Any] = {
        "scores": fitted.scores_,
        "neutral": fitted.neutral_,
        "fitted_on": fitted.fitted_on_,
    }
    chosen = Mars(reading=MarsReading(candidates="all"))._adopt(centroids=centroids, **parts)
    assert chosen.candidates == (0, 2)
    assert chosen.layer_ in (0, 2)
    with pytest.raises(ValueError, match=r"no refusal direction at layer 3: .* pick another layer"):
        chosen.retuned(layer=3)
    # Steering all layers passes over those: no direction, no step.
    everywhere = chosen.retuned(every_layer=True)
    assert everywhere.answer(tiny, encode(tiny, text_sets().unsafe[:2]), settings=SETTINGS)


def test_retuned_shares_the_fit_and_leaves_the_first_as_it_was(fitted: Mars) -> None:
    fingerprint = fitted.fingerprint
    other = fitted.retuned(layer=None, rectified=False, reading=MarsReading(candidates="all"))
    assert (other.layer, other.rectified, other.candidates) == (None, False, (0, 1, 2, 3))
    assert other.centroids_ is fitted.centroids_
    assert other.neutral_ is fitted.neutral_
    assert (fitted.layer_, fitted.rectified, fitted.fingerprint) == (LAYER, True, fingerprint)
    assert fitted.retuned().fingerprint == fingerprint
    with pytest.raises(ValueError, match="separability='as_printed' needs a fit of its own"):
        fitted.retuned(reading=MarsReading(separability="as_printed"))
    with pytest.raises(ValueError, match="layer 4 does not exist; tiny has layers 0…3"):
        fitted.retuned(layer=4)
    with pytest.raises(TypeError, match="alpha"):
        fitted.retuned(alpha=1.0)


def test_other_centres_can_be_tried(tiny: MLLM, fitted: Mars, encoded: Encoded) -> None:
    few = outputs(tiny, neutral()[0][:2]).mean(0)
    image = fitted.neutral_["image"].clone()
    image[LAYER] = few
    other = fitted.recentred_on({"image": image, "video": fitted.neutral_["video"]})
    assert torch.equal(other.centres(encoded.prompts[2:3], layer=LAYER)[0], few)
    assert other.fingerprint != fitted.fingerprint
    assert not torch.equal(fitted.neutral_["image"], image)
    for wrong in ({"video": image}, {"image": image, "clip": image}, {"image": image[:2]}):
        with pytest.raises(ValueError, match=r'allowed are "image", .* \[layers, dim\] = \[4, 32\]'):
            fitted.recentred_on(wrong)


def test_save_load_gives_the_same_answers(tiny: MLLM, fitted: Mars, encoded: Encoded, tmp_path: Path) -> None:
    changed = fitted.retuned(
        layer=None,
        rectified=False,
        every_layer=True,
        without=["margin"],
        fewest=3,
        reading=MarsReading(candidates="all", positions="each", text_inputs="neutral"),
    )
    for number, defence in enumerate((fitted, changed, fitted.retuned(recentre=False))):
        restored = Mars.load(defence.save(tmp_path / str(number)), tiny)
        before, after = (d.answer(tiny, encoded, settings=SETTINGS) for d in (defence, restored))
        assert answers(after) == answers(before)
        assert restored.fingerprint == defence.fingerprint
        assert restored._hyperparameters() == defence._hyperparameters()
        assert (restored.layer_, restored.centroids_.refusals) == (defence.layer_, 12)
        assert restored.retuned(layer=2).fingerprint == defence.retuned(layer=2).fingerprint


def test_the_fingerprint_sees_all_that_an_answer_depends_on(fitted: Mars, tiny: MLLM) -> None:
    every: list[dict[str, Any]] = [
        {},
        {"layer": 2},
        {"recentre": False},
        {"rectified": False},
        {"every_layer": True},
        {"reading": MarsReading(text_centre="neutral")},
        {"reading": MarsReading(text_inputs="neutral")},
        {"reading": MarsReading(video_centre="pictures")},
        {"reading": MarsReading(positions="each")},
    ]
    defences = [fitted.retuned(**changes) for changes in every]
    assert len({defence.fingerprint for defence in defences}) == len(every)
    # How the layer was found is no part of what is done there, nor how many texts would have been enough.
    found = fitted.retuned(layer=None, reading=MarsReading(candidates="all"))
    assert found.fingerprint == fitted.retuned(layer=found.layer_).fingerprint
    assert fitted.retuned(fewest=1).fingerprint == fitted.fingerprint


def test_a_state_of_another_model_is_refused(
    tiny: MLLM, other_tiny: MLLM, fitted: Mars, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"fitted on tiny .* and the model at hand is other"):
        fitted.respond(other_tiny, mixed_prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match="fit the defence on this model"):
        Mars.load(fitted.save(tmp_path), other_tiny)
    with pytest.raises(ValueError, match="load the model with add_generation_prompt=True"):
        fitted.respond(replace(tiny, add_generation_prompt=False), mixed_prompts, settings=SETTINGS)


def test_before_fit(tiny: MLLM, mixed_prompts: list[Prompt], tmp_path: Path) -> None:
    mars = Mars()
    uses: list[Callable[[], object]] = [
        lambda: mars.respond(tiny, mixed_prompts, settings=SETTINGS),
        lambda: mars.save(tmp_path),
        lambda: mars.fingerprint,
        lambda: mars.direction,
        lambda: mars.candidates,
        lambda: mars.centres(mixed_prompts, layer=0),
        lambda: mars.retuned(layer=1),
        lambda: mars.recentred_on({}),
    ]
    for use in uses:
        with pytest.raises(NotFittedError, match=r"call fit\(mllm, texts, pictures=…\), or Mars\.load"):
            use()


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layer": "3"}, "layer is '3'"),
        ({"recentre": "no"}, "recentre is 'no'"),
        ({"reading": "paper"}, r"reading is 'paper', of type str; give MarsReading\("),
        ({"without": None}, "without is None; give a list of scores"),
    ],
)
def test_a_setting_of_another_type_is_told_before_the_fit(given: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        Mars(**given)
