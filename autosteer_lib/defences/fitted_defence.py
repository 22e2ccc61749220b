"""What fitted defences share besides their ideas: disk, fingerprint, other hyper-parameters, "not fitted yet".

    state = tensors (safetensors) + values (JSON) + hyper-parameters (JSON) + the model they were fitted on

A subclass says what its state is; `fit`, `load` and `retuned` all end in the same `_adopt`, so that a defence
is the same thing whichever way it came about.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.arguments import check_names
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.fitted_state import FittedOn, load_state, restoring, save_state, state_hash
from autosteer_lib.models import MLLM

Own = TypeVar("Own", bound="FittedDefence")  # typing.Self is not known to the type checks of the tests


class FittedDefence(SteeringDefence):
    """A steering defence with a state; fitted values end in an underscore."""

    kind: ClassVar[str]
    """Names the state on disk."""
    fit_call: ClassVar[str]
    """How it is fitted, for the error of one that is not."""
    read_by_fit: ClassVar[frozenset[str]]
    """Hyper-parameters that the fit has used up: another value of them needs another fit."""

    fitted_on_: FittedOn

    @property
    @abstractmethod
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given, by name, as JSON can say it."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """The fitted tensors."""

    @abstractmethod
    def _values(self) -> dict[str, Any]:
        """The fitted values that are no tensors, as JSON can say them."""

    @abstractmethod
    def _answers_depend_on(self) -> dict[str, Any]:
        """Hyper-parameters and values that are read while answering; the tensors and the model are added."""

    @abstractmethod
    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Set the fitted fields.

        Raises:
            ValueError: they do not go with the hyper-parameters.
        """

    @property
    def fingerprint(self) -> str:
        """Hash of all that an answer depends on."""
        self._check_fitted()
        settings = {
            "defence": self.kind,
            "fitted_on": self.fitted_on_.facts(),
            "tensors": self._tensors_hash,
            **self._answers_depend_on(),
        }
        return state_hash({}, settings)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted defence; `load` reads it back."""
        self._check_fitted()
        settings = {"hyperparameters": self.hyperparameters, "values": self._values()}
        return save_state(
            folder, kind=self.kind, tensors=self._tensors(), settings=settings, fitted_on=self.fitted_on_
        )

    @classmethod
    def load(cls: type[Own], folder: str | Path, mllm: MLLM) -> Own:
        """Read a fitted defence for the model it was fitted on."""
        state = load_state(folder, mllm, kind=cls.kind)
        with restoring(folder):
            defence = cls(**state.settings["hyperparameters"])
            return defence._adopt(state.tensors, state.settings["values"], fitted_on=state.fitted_on)

    def retuned(self: Own, **changes: Any) -> Own:
        """The same fit with other hyper-parameters, for sweeps; nothing is computed again.

        Raises:
            TypeError: no hyper-parameter of this defence.
            ValueError: a hyper-parameter that the fit itself depends on.
        """
        self._check_fitted()
        check_names(changes, self.hyperparameters, of=self.kind)
        other = type(self)(**{**self.hyperparameters, **changes})
        for name in self.read_by_fit & changes.keys():
            if other.hyperparameters[name] != self.hyperparameters[name]:
                raise ValueError(
                    f"{name}={changes[name]!r} needs a fit of its own: this {self.kind} was fitted with "
                    f"{self.hyperparameters[name]!r}"
                )
        return other._adopt(self._tensors(), self._values(), fitted_on=self.fitted_on_)

    def _adopt(
        self: Own, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, fitted_on: FittedOn
    ) -> Own:
        self._check_named()
        self._restore(tensors, values)
        self.fitted_on_ = fitted_on
        self._tensors_hash = state_hash(self._tensors(), {})
        return self

    def _check_named(self) -> None:
        """A hyper-parameter that is not named would be back at its default after `load` and `retuned`, in silence."""
        taken = signature(type(self)).parameters.keys()
        for name, named in (
            ("hyperparameters", self.hyperparameters.keys() ^ taken),
            ("read_by_fit", self.read_by_fit - taken),
        ):
            if named:
                raise TypeError(
                    f"{type(self).__name__}.{name} and its __init__, which takes {', '.join(taken)}, differ in "
                    f"{', '.join(sorted(named))}; hyperparameters names all of these and no other, read_by_fit some"
                )

    def _check_model(self, mllm: MLLM) -> None:
        self._check_fitted()
        self.fitted_on_.check(mllm)

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_on_"):
            raise NotFittedError(
                f"this {self.kind} is not fitted; call {self.fit_call}, or {type(self).__name__}.load"
            )
