"""The guard of a running training: looks, keeps a snapshot of the adapter at each look, and chooses one at the end.

    prefer/
        looks.jsonl     a line a look: step, key of the run, means, every watched video, SHA-256 of the snapshot
        snapshots/      step-NNNNNNNN.safetensors, an adapter file a look; only the chosen one stays
        guards.json     what was seen at every look, what ended the training, which step was chosen, and why

A look happens between two steps, after a checkpoint of exactly that step, and leaves a record of its own: a run that
is cut goes on with the look at hand and repeats no other. Records of steps that a run has gone back behind are dropped
with their snapshots.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicid_cli.events import Events
from magicid_cli.guards import rules
from magicid_cli.guards.rules import Look, Seen
from magicid_cli.workspace import (
    append_line,
    atomic_path,
    file_digest,
    read_lines,
    write_json,
    write_lines,
)

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """What came of a guarded training.

    Attributes:
        step: whose adapter was chosen; 0 for the one that the round started from.
        stopped: the rule that ended the training early, or None.
        why: why it was ended, if it was, and why this step; sentences.
    """

    step: int
    stopped: str | None
    why: str


@dataclass(frozen=True)
class Looking:
    """How a guard sees and keeps the policy.

    Attributes:
        policy: samples and judges the watched videos with the policy as it is: means, and a row a video.
        stage_1: the same with the model that the round started from; in the first round that of stage 1.
        save: writes the policy as it is to an adapter file, atomically.
        save_start: the same with the adapter that the round started from.
        start: what to call the model that the round started from.
        otherwise: what a user may type instead if every look lost something.
    """

    policy: Callable[[], tuple[Seen, list[dict[str, Any]]]]
    stage_1: Callable[[], tuple[Seen, list[dict[str, Any]]]]
    save: Callable[[Path], None]
    save_start: Callable[[Path], None]
    start: str = rules.STAGE_1
    otherwise: str = "the stage-1 adapter alone (--prefer-steps 0)"


class Guard:
    """Looks at a training every so often; meets `training.Guard`.

    Args:
        folder: the stage's folder.
        steps: of the whole training.
        every: steps between looks; there is one at the end, too.
        key: digest of everything the training reads; looks of another key are dropped.
        looking: how to see and keep the policy.
        events: where progress goes.
    """

    def __init__(self, folder: Path, *, steps: int, every: int, key: str, looking: Looking, events: Events) -> None:
        self._folder, self._steps, self._every, self._key = folder, steps, every, key
        self._looking, self._events = looking, events
        self._records = [row for row in read_lines(self._file) if row["key"] == key]

    def due(self, step: int) -> bool:
        """Whether the guard looks after this many steps."""
        return step % self._every == 0 or step == self._steps

    def ends(self, step: int, rows: Rows) -> bool:
        """Look if it is due and not done yet; whether the training ends here, for harm.

        Args:
            step: finished steps.
            rows: the metrics up to this step, a line a step.
        """
        self._go_back_to(step)
        if not self._seen_at(0):
            self._look(0)
        if step == 0 or not self.due(step):
            return False
        if not self._seen_at(step):
            self._look(step)
        sign = rules.ending(self.looks(rows), self._looking.start)
        if sign is not None and step < self._steps:
            message = f"Stage 2 ends after step {step} of {self._steps} ({sign.rule}): {sign.why}."
            self._events.notice(message, stage="prefer", rule=sign.rule, step=step)
        return sign is not None

    def looks(self, rows: Rows) -> list[Look]:
        """Every look but the one at the start, oldest first."""
        start, *later = self._records
        befores = [0, *(record["step"] for record in later)]
        return [
            rules.look(record["step"], before, rows, _means(start), _means(record))
            for before, record in zip(befores, later, strict=False)
        ]

    def finish(self, rows: Rows, adapter: Path) -> Verdict:
        """Choose a look's adapter or the start's, put it in its place, and write `guards.json`.

        A snapshot that is not as it was written cannot be chosen, which is announced.

        Args:
            rows: the metrics of the whole training.
            adapter: the final adapter's file.
        """
        looks = self.looks(rows)
        last = looks[-1].step
        start = self._looking.start
        sign = rules.ending(looks, start) if last < self._steps else None
        choice = rules.choose(looks, start)
        while choice.step not in (0, last) and not self._is_whole(choice.step):
            message = f"The snapshot of step {choice.step} is damaged; another step is chosen instead."
            self._events.emit("fallback", message=message, stage="prefer")
            looks = [one for one in looks if one.step != choice.step]
            choice = rules.choose(looks, start)
        if choice.step == last:
            self._looking.save(adapter)  # the policy as it is
        elif choice.step == 0:
            self._looking.save_start(adapter)
        else:
            with atomic_path(adapter) as temporary:
                temporary.write_bytes(self._snapshot(choice.step).read_bytes())
        why = f"the adapter of step {choice.step}: {choice.why}" if choice.step else choice.why
        if sign is not None:
            why = f"ended after step {last} of {self._steps} because {sign.why}; {why}"
        verdict = Verdict(choice.step, sign.rule if sign else None, why)
        self._tell(verdict, choice.qualified, rows)
        for path in self._snapshots.glob("*.safetensors"):
            if path != self._snapshot(choice.step):
                path.unlink()
        return verdict

    def _tell(self, verdict: Verdict, qualified: bool, rows: Rows) -> None:
        """Write down what was decided, and say if no checkpoint is a good one."""
        seen = self.looks(rows)
        report = {
            **asdict(verdict),
            "qualified": qualified,
            "steps": self._steps,
            "stage_1": asdict(_means(self._records[0])),
            "looks": [
                {**asdict(one), "signs": [sign.rule for sign in rules.signs(seen[: number + 1])]}
                for number, one in enumerate(seen)
            ],
        }
        write_json(self._folder / "guards.json", report)
        self._events.emit("choice", stage="prefer", **asdict(verdict), qualified=qualified)
        if not qualified:
            message = (
                f"Stage 2 lost likeness or motion at every look: {verdict.why}. "
                f"Try a lower learning rate (--prefer-lr), or {self._looking.otherwise}."
            )
            self._events.emit("fallback", message=message, stage="prefer")

    @property
    def _file(self) -> Path:
        return self._folder / "looks.jsonl"

    @property
    def _snapshots(self) -> Path:
        return self._folder / "snapshots"

    def _snapshot(self, step: int) -> Path:
        return self._snapshots / f"step-{step:08d}.safetensors"

    def _is_whole(self, step: int) -> bool:
        path = self._snapshot(step)
        (record,) = [record for record in self._records if record["step"] == step]
        return path.is_file() and file_digest(path) == record["snapshot"]

    def _seen_at(self, step: int) -> bool:
        return any(record["step"] == step for record in self._records)

    def _go_back_to(self, step: int) -> None:
        """Drop what was seen after this step, and all of another run."""
        kept = [record for record in self._records if record["step"] <= step]
        if step == 0:
            (self._folder / "guards.json").unlink(missing_ok=True)
        if step == 0 or len(kept) < len(self._records):
            write_lines(self._file, kept)
            names = {self._snapshot(record["step"]).name for record in kept}
            for path in self._snapshots.glob("*.safetensors"):
                if path.name not in names:
                    path.unlink()
        self._records = kept

    def _look(self, step: int) -> None:
        """Sample, judge and keep; the record comes last, so that a look without one is made again."""
        begun = time.monotonic()
        seen, videos = self._looking.policy() if step else self._looking.stage_1()
        snapshot = None
        if step:
            self._looking.save(self._snapshot(step))
            snapshot = file_digest(self._snapshot(step))
        row = {
            "step": step,
            "key": self._key,
            **asdict(seen),
            "snapshot": snapshot,
            "seconds": round(time.monotonic() - begun, 3),
            "videos": videos,
        }
        append_line(self._file, row)
        self._records = sorted([*self._records, row], key=lambda record: record["step"])
        self._events.emit("look", stage="prefer", step=step, of=self._steps, **asdict(seen))


def unguarded(folder: Path, steps: int) -> Verdict:
    """What came of a training without a guard; what an earlier one left in the stage's folder is removed."""
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    for name in ("looks.jsonl", "guards.json"):
        (folder / name).unlink(missing_ok=True)
    return Verdict(steps, None, f"the adapter of step {steps}, the last one: the guards are off")


def _means(record: Mapping[str, Any]) -> Seen:
    return Seen(record["likeness"], record["motion"])
