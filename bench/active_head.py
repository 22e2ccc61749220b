"""What does the Refusal Head cost at each token of an answer that it steers?

One d × d product a token beside the model's own, and a hook to do it in.

    ratio = seconds per token(AutoSteer, gate open) / seconds per token(plain)      target: at most 1.03

Both sides write the same number of tokens after the same short prompt, so the ratio of whole answers is
that of tokens; the prefill, about as dear as one or two steps here, is on both sides.
"""

from bench.answering import Question, ask
from bench.harness import Result, Settings, Target

TARGET = Target(kind="at_most", bound=1.03, words="at most 3 % a token over the plain model")


def run(settings: Settings) -> Result:
    """At one row (a chat) and at sixteen."""
    question = Question(
        bench="active_head",
        opens=True,
        target=TARGET,
        rounds_shipped={1: 40, 16: 30},
        rounds_medium={1: 20, 16: 15},
    )
    return ask(question, settings=settings)
