"""Guards of preference optimization: they watch it, end it when it does harm, and choose the best of its checkpoints.

`rules` decides, from measurements alone; `watching` samples and judges the fixed videos; `keeping` is the guard that
the training loop asks, with its records and snapshots on disk.
"""

from magicid_cli.guards.keeping import Guard, Looking, Verdict, unguarded
from magicid_cli.guards.watching import READS, open_guard, wishes

__all__ = ["READS", "Guard", "Looking", "Verdict", "open_guard", "unguarded", "wishes"]
