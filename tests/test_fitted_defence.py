"""What fitted defences share: no hyper-parameter can be left out of what is saved, and none can be misspelt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import Mars, SafeSteer
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.defences.gated_vectors import GatedVectors
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.models import MLLM
from autosteer_lib.sites import resid_post
from tests import safesteer_on_tiny
from tests.mars_on_tiny import fit as fit_mars


class Plain(FittedDefence):
    """The least that a fitted defence can be: one vector, added everywhere."""

    name = "Plain"
    kind: ClassVar[str] = "Plain"
    fit_call: ClassVar[str] = "fit(mllm)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset({"layer"})

    def __init__(self, *, layer: int = 1, strength: float = 1.0) -> None:
        self.layer, self.strength = layer, strength

    def fit(self, mllm: MLLM) -> "Plain":
        return self._adopt({"vector": torch.ones(mllm.dim)}, {}, fitted_on=FittedOn.of(mllm))

    def steering(self, mllm: MLLM, encoded: Encoded) -> GatedVectors:
        self._check_model(mllm)
        return GatedVectors({resid_post(self.layer): self.strength * self.vector_})

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {"layer": self.layer, "strength": self.strength}

    def _tensors(self) -> dict[str, Tensor]:
        return {"vector": self.vector_}

    def _values(self) -> dict[str, Any]:
        return {}

    def _answers_depend_on(self) -> dict[str, Any]:
        return self.hyperparameters

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.vector_ = tensors["vector"]


class Forgetful(Plain):
    """Its strength would be 1 again after `load` and `retuned`, and nothing would say so."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {"layer": self.layer}


class Misspelt(Plain):
    """Its layer could be changed without a fit."""

    read_by_fit: ClassVar[frozenset[str]] = frozenset({"layers"})


def test_every_hyper_parameter_survives(tiny: MLLM, tmp_path: Path) -> None:
    fitted = Plain(strength=9.0).fit(tiny)
    assert Plain.load(fitted.save(tmp_path), tiny).strength == 9.0
    assert fitted.retuned().strength == 9.0
    with pytest.raises(ValueError, match="layer=2 needs a fit of its own"):
        fitted.retuned(layer=2)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Forgetful, r"Forgetful\.hyperparameters and its __init__, which takes layer, strength, differ in strength"),
        (Misspelt, r"Misspelt\.read_by_fit and its __init__, .* differ in layers; .*read_by_fit some"),
    ],
)  # fmt: skip
def test_a_hyper_parameter_that_is_not_named_is_told_at_the_first_fit(
    tiny: MLLM, kind: type[Plain], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        kind(strength=9.0).fit(tiny)


def test_a_misspelt_hyper_parameter_is_answered_with_those_that_there_are(tiny: MLLM) -> None:
    """Of the papers' own too, which are no `FittedDefence`."""
    with pytest.raises(TypeError, match="Plain has no hyper-parameter strenght; it has layer, strength"):
        Plain().fit(tiny).retuned(strenght=2.0)
    mars = fit_mars(Mars(), tiny)
    with pytest.raises(
        TypeError, match="MARS has no hyper-parameter layers; it has reading, layer, recentre"
    ):
        mars.retuned(layers=2)
    safesteer = safesteer_on_tiny.fit(SafeSteer(), tiny)
    with pytest.raises(TypeError, match=r"SafeSteer has no hyper-parameter steps; it has .*\bstep\b"):
        safesteer.retuned(steps=2)
