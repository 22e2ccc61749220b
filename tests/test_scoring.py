"""Which option an answer decides for, in each form that models write it in and alike for each letter."""

import pytest

from autosteer_lib.scoring import correct

LETTERS = "ABCDEFGHIJ"
FORMS = [
    "X",
    "X.",
    "(X)",
    "[X]",
    "**X**",
    "`X`",
    "X. A cat on a mat",
    "**X. A cat**",
    "(X) I see a cat",
    "X: the cat",
    "X) the cat",
    "X\nThe picture shows a cat.",
    "Option X",
    "Option X: a cat",
    "Answer X",
    "### Answer\nX",
    "Answer: X",
    "Answer: (X)",
    "**Answer:** X",
    "Answer: **X**. A cat",
    "answer = X",
    "Final answer: $X$",
    "The answer is X",
    "The answer is X.",
    'The answer is "X"',
    "The answer is 'X'.",
    "The answer is “X”.",
    "The answer is option X.",
    "The answer is X because it is a cat",
    "The answer is most likely (X).",
    "The answer is:\n\n**X**",
    "The answer should be X.",
    "The correct answer is **X**.",
    "The correct option is: X",
    "The best option I see is (X).",
    "Answer: I think it is X.",
    "X is correct.",
    "(X) is the right answer, I think.",
    "\\boxed{X}",
    "$\\boxed{\\text{X}}$",
    "So the answer is \\boxed{(X)}, as I said.",
    "I'd choose X",
    "I would go with X.",
    "I choose (X) since I see a cat.",
    "It is X",
    "It's X.",
    "It must be X, I think.",
    "I see a cat, so X.",
    "There is a cat on a mat, thus (X)!",
    "As the cat is (X) I am sure.",
]
REASONED = [
    "Option A is incorrect, so the answer is X.",
    "Answer A is wrong, answer I is wrong; the answer is X.",
    "The answer is not A. The answer is X.",
    "At first the answer is B, but on reflection the answer is X.",
    "Option A: a cat. Option B: a dog.\nI see a dog.\nAnswer: X",
    "(A) is wrong, (B) is wrong, which leaves X.",
    "It could be A or B at first sight. A cat has four legs. I conclude that the answer is **X**.",
    "If I had to choose, I would choose A; yet I am told the correct answer is (X).",
]  # fmt: skip


@pytest.mark.parametrize("form", [*FORMS, *REASONED])
def test_a_decision_is_read_alike_for_every_letter(form: str) -> None:
    for letter in LETTERS:
        answer = form.replace("X", letter)
        for reference in LETTERS:
            right = correct(answer, reference=reference, scoring="letter")
            assert right is (letter == reference), (answer, reference)


@pytest.mark.parametrize("letter", LETTERS.replace("I", ""))
def test_a_lone_letter_in_mid_sentence_is_a_last_resort(letter: str) -> None:
    """But for I, which is the pronoun there."""
    assert correct(f"Probably {letter}, by its shape.", reference=letter, scoring="letter")
    assert correct(f"Looks like {letter} to me.", reference=letter, scoring="letter")


@pytest.mark.parametrize(
    "prose",
    [
        "A cat is on the mat.",
        "A cat and a dog.",
        "It is a dog and a cat.",
        "It is A cat.",
        "The answer is a cat.",
        "The answer is A cat.",
        "I think so.",
        "I think it is a cat.",
        "I'm not sure, and I can't tell.",
        "I, too, see a cat.",
        "The option I prefer is the cat.",
        "As an AI model I cannot see.",
        "The U.S.A. and an A-level in C++ and C#, at 30°C.",
        "The answer is not A.",
        "Option A is incorrect.",
        "(A) is wrong.",
        "Because of B's shape.",
        "b",
        "",
    ],
)
def test_prose_without_a_decision_names_no_option(prose: str) -> None:
    assert not any(correct(prose, reference=letter, scoring="letter") for letter in LETTERS)
