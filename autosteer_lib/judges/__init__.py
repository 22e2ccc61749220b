"""Who says whether an answer was unsafe, and whether it was a refusal.

base            Judge, BatchJudge, Verdict, Opinion: the two questions, and who may leave one open
phrases         the string judge;  refusal_lists: the lists that were published
asked           a judge that is a model: question → reply → opinion, each reply kept on disk
llama_guard · harmbench · wildguard · gpt     what each is shown, and how its reply is read
local_model · api_model                       who replies: a checkpoint here, or a server
open_judge      the published judges by name
"""

from autosteer_lib.judges.base import (
    BatchJudge,
    Judge,
    Opinion,
    Verdict,
    check_judge,
    is_correct,
    normalise,
    opinions,
    verdict,
)
from autosteer_lib.judges.phrases import REFUSAL_PHRASES, RefusalPhrases

__all__ = [
    "REFUSAL_PHRASES",
    "BatchJudge",
    "Judge",
    "Opinion",
    "RefusalPhrases",
    "Verdict",
    "check_judge",
    "is_correct",
    "normalise",
    "opinions",
    "verdict",
]
