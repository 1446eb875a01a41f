"""`magicid study`: a blind comparison of several methods' videos by people, and what came out of it.

`build.py` packs a folder that raters open without a network, `results.py` reads their answers back, `statistics.py` is
the mathematics.
"""

from magicid_cli.pages.study.build import Built, Candidate, build, sets_of
from magicid_cli.pages.study.questions import QUESTIONS, Question
from magicid_cli.pages.study.results import Outcome, results

__all__ = ["QUESTIONS", "Built", "Candidate", "Outcome", "Question", "build", "results", "sets_of"]
