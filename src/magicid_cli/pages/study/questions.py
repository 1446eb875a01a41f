"""What raters are asked of every set: the four questions of the paper's human evaluation, in our words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: its name in answers.
        title: its name for people.
        text: the question.
    """

    id: str
    title: str
    text: str


QUESTIONS = (
    Question(
        "identity", "Identity consistency", "In which video does the person look most like the photos, throughout?"
    ),
    Question("dynamics", "Dynamic quality", "Which video has the best motion: natural, smooth and enough of it?"),
    Question("text", "Text alignment", "Which video shows best what the text says?"),
    Question("overall", "Overall", "Which video is the best one, all in all?"),
)
NEITHER = "none"
"""The answer of somebody who sees no difference."""
