"""The paper's table: six metrics of any videos of one person, with intervals, and who made each number.

`collecting.py` says which videos there are and what each should show; `likeness.py`, `motion.py`, `pictures.py` and
`features.py` look at them; `harness.py` lets them, and `left.py` says before what they have left to do; `summary.py`
takes the means, and `sheet.py` writes the tables. `frechet.py` and `statistics.py` are the mathematics, `i3d.py` is the
network of FVD.
"""

from magicid_cli.evaluation.harness import evaluate
from magicid_cli.evaluation.records import METRICS, Evaluation, Figure, Item, Metric, SetAside

__all__ = ["METRICS", "Evaluation", "Figure", "Item", "Metric", "SetAside", "evaluate"]
