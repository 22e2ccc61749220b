"""One file for each defence, all with the face of `base.Defence`; helpers of several beside them."""

from autosteer_lib.defences.activation_transfer import ActivationTransfer
from autosteer_lib.defences.adasteer import AdaSteer
from autosteer_lib.defences.answer_detector import AnswerDetector
from autosteer_lib.defences.autosteer import AutoSteer
from autosteer_lib.defences.base import Defence, SteeringDefence
from autosteer_lib.defences.cast import Cast
from autosteer_lib.defences.coca import Coca
from autosteer_lib.defences.ecso import Ecso
from autosteer_lib.defences.fixed_strength import FixedStrength
from autosteer_lib.defences.hub_heads import HubDetector, HubRewriter
from autosteer_lib.defences.k_steering import KSteering
from autosteer_lib.defences.mars import Mars
from autosteer_lib.defences.mllm_protector import MllmProtector, Refusal, SelfRewriter
from autosteer_lib.defences.prompted import AdaShieldS, Prompted, SelfReminder
from autosteer_lib.defences.refusal_direction import RefusalDirection
from autosteer_lib.defences.safesteer import SafeSteer
from autosteer_lib.defences.steer import Steer
from autosteer_lib.defences.undefended import Undefended

__all__ = [
    "ActivationTransfer",
    "AdaShieldS",
    "AdaSteer",
    "AnswerDetector",
    "AutoSteer",
    "Cast",
    "Coca",
    "Defence",
    "Ecso",
    "FixedStrength",
    "HubDetector",
    "HubRewriter",
    "KSteering",
    "Mars",
    "MllmProtector",
    "Prompted",
    "Refusal",
    "RefusalDirection",
    "SafeSteer",
    "SelfReminder",
    "SelfRewriter",
    "Steer",
    "SteeringDefence",
    "Undefended",
]
