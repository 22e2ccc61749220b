"""What does AutoSteer cost on a prompt that needs no defence?

The gate is asked once, in the prefill; when it stays shut the hooks are gone before the first decoding
step. So the whole cost is one small classifier a prompt.

    ratio = seconds(AutoSteer, gate shut) / seconds(plain)          target: at most 1.01
"""

from bench.answering import Question, ask
from bench.harness import Result, Settings, Target

TARGET = Target(kind="at_most", bound=1.01, words="at most 1 % over the plain model")


def run(settings: Settings) -> Result:
    """At one row (a chat) and at sixteen; more rounds where a sample is short, for 1 % is to be seen."""
    question = Question(
        bench="inactive_gate",
        opens=False,
        target=TARGET,
        rounds_shipped={1: 60, 16: 40},
        rounds_medium={1: 30, 16: 20},
    )
    return ask(question, settings=settings)
