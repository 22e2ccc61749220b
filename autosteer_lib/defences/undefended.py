"""Orig.: the model as it is, the row that every table starts with."""

from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.models import MLLM


class Undefended(SteeringDefence):
    """No defence: plain generation, without a hook."""

    name = "Orig."

    @property
    def fingerprint(self) -> str:
        """The same for all: there is nothing to set."""
        return state_hash({}, {"defence": "undefended"})

    def steering(self, mllm: MLLM, encoded: Encoded) -> None:
        """Nothing to do."""
        return None
