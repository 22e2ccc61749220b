"""One file for each defence, all with the face of `base.Defence`; helpers of several beside them."""

from autosteer_lib.defences.autosteer import AutoSteer
from autosteer_lib.defences.base import Defence, SteeringDefence
from autosteer_lib.defences.fixed_strength import FixedStrength
from autosteer_lib.defences.mars import Mars
from autosteer_lib.defences.steer import Steer
from autosteer_lib.defences.undefended import Undefended

__all__ = ["AutoSteer", "Defence", "FixedStrength", "Mars", "Steer", "SteeringDefence", "Undefended"]
