"""The paper's table: six metrics of any videos of one person, with intervals, and who made each number.

`collecting.py` says which videos there are and what each should show, `panel.py` holds the judges, `harness.py` has them
look and takes the means, `sheet.py` writes the tables. `frechet.py` and `statistics.py` are the mathematics.
"""

from magicid_cli.evaluation.records import METRICS, Evaluation, Figure, Item, Metric, SetAside

__all__ = ["METRICS", "Evaluation", "Figure", "Item", "Metric", "SetAside", "evaluate"]


from magicid_cli.evaluation.harness import evaluate  # noqa: E402
