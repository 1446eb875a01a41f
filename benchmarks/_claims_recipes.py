"""What is compared: methods, tables, figures and decisions, and the people and prompts on which each may look.

Every method is settings of the public command line on the miniature. A method's doses follow from the defaults, so that
all methods of a table take the same total number of optimizer steps whatever the defaults become.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from magicid_cli.config import KNOBS, PRESETS, Settings
from magicid_cli.prompts import drawn
from magicid_cli.rounds import FIRST, named
from magicid_cli.world.people import person

CURVE_POINTS = 7
"""Into so many parts figure 2b divides the steps."""
LOW_DOSE = 0.1
"""Learning rate of stage 1, as a share of the default's, at which likeness is low."""


# ------------------------------------------------------------------------------------------------- people and prompts


@dataclass(frozen=True)
class Split:
    """Who is customized, and what is generated of them.

    Attributes:
        name: of the split.
        people: seeds of drawn people, none of them in the other split, in a gate or in a demo; first ones first.
        seeds: of customizations.
        prompts_from: the seed that picks the evaluation's prompts; none of them is in the other split, and none is a
            prompt that a customization with these seeds practises.
        noise_from: the first seed of the evaluation's noise.
    """

    name: str
    people: tuple[int, ...]
    seeds: tuple[int, ...]
    prompts_from: int
    noise_from: int

    def prompts(self, count: int, who: int) -> list[str]:
        """The evaluation's prompts for a person."""
        return drawn.pick(count, self.prompts_from, person(who).kind)

    def noise(self, seed: int, count: int) -> list[int]:
        """Seeds of the evaluation's noise for one customization seed, the same for all people and methods."""
        first = self.noise_from + 1000 * self.seeds.index(seed)
        return list(range(first, first + count))


DEVELOPMENT = Split("development", (900, 903, 901, 908, 902), (11, 12, 13), prompts_from=1020, noise_from=1_000_000)
"""Recipes are chosen here, by the reward's face encoder, motion and the prompted action."""
FINAL = Split("final", (950, 951, 952, 953, 954), (101, 102, 103), prompts_from=1034, noise_from=2_000_000)
"""The tables are measured here, with the evaluation's face encoder; nothing is chosen by it."""


@dataclass(frozen=True)
class Amounts:
    """How much of a split is looked at, and how long runs are.

    Attributes:
        people: the split's first so many.
        seeds: the split's first so many.
        prompts: of the evaluation; seven are every action once.
        noise: videos of each prompt.
        photos: in an album.
        doses: settings that every method starts from, above the miniature's own; for a trial of the machinery.
    """

    people: int = 5
    seeds: int = 3
    prompts: int = 14
    noise: int = 2
    photos: int = 10
    doses: Mapping[str, Any] = field(default_factory=dict)


SCREEN = Amounts(people=2, seeds=1)
TRIAL = Amounts(
    people=2,
    seeds=1,
    prompts=2,
    noise=1,
    photos=4,
    doses={
        "reconstruct.steps": 6,
        "prefer.steps": 8,
        "prefer.probe_steps": 4,
        "repository.prompts": 3,
        "repository.tuned": 6,
        "repository.initial": 3,
        "repository.steps": 2,
        "pairs.count": 6,
        "pairs.held_out": 1,
        "generate.steps": 2,
    },
)
"""A trial of the machinery: it says nothing about any method."""


# ------------------------------------------------------------------------------------------------------------ methods


@dataclass(frozen=True)
class Method:
    """A way to customize and to generate.

    Attributes:
        name: in tables.
        values: settings above the miniature's own, by dotted name.
        preset: the preset that they are above, if any.
        about: what is done, for the page.
        other: the name of another method than MagicID, as `--method` takes it.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    about: str = ""
    other: str = ""


@dataclass(frozen=True)
class Probe:
    """Another look at what a method has made.

    Attributes:
        name: empty for the evaluation as it is.
        values: settings of `generate` above the method's.
        point: which of `points_of` the method's settings; None for the finished adapter.
    """

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    point: int | None = None


@dataclass(frozen=True)
class Table:
    """Methods that are compared on the same people, prompts and seeds.

    Attributes:
        name: what `--only` takes.
        title: for the page.
        methods: names, from top to bottom.
        against: the method from which differences are taken.
        probes: the looks; one for most tables.
        screened: whether it is measured on the development split.
        seeds: the most customization seeds of a person, None for all that are asked for.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    against: str
    probes: tuple[Probe, ...] = (Probe(),)
    screened: bool = False
    seeds: int | None = None


BASE, DREAMBOOTH, MAGICID, STAGE_1 = "untouched base", "DreamBooth-LoRA", "MagicID", "stage 1 alone"
MAGIC_ME = "Magic-Me"
ROUNDS = "MagicID, two rounds"
PAPER = "MagicID, the paper's rules"
PAPER_PAIRS = "MagicID, the paper's pairs"
PAPER_DOSES = "MagicID, the paper's rules and doses"
LOW_STAGE_1, LOW_DREAMBOOTH, LOW_MAGICID = "stage 1 alone, low", "DreamBooth-LoRA, low", "MagicID, low"
IDENTITY_PAIRS, IDENTITY_REWARD, TWO_REWARDS = "identity pairs", "identity reward", "identity + dynamics"

_LENGTHS = (5, 13, 17)  # frames, beside those of training

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "table-1",
            "Table 1: methods at equal total steps",
            (BASE, STAGE_1, DREAMBOOTH, MAGIC_ME, MAGICID, PAPER),
            DREAMBOOTH,
        ),
        Table(
            "low-dose",
            "Table 1, at a dose of stage 1 at which likeness is low",
            (BASE, LOW_STAGE_1, LOW_DREAMBOOTH, LOW_MAGICID),
            LOW_DREAMBOOTH,
        ),
        Table("table-2", "Table 2: pairs", (DREAMBOOTH, IDENTITY_PAIRS, PAPER_PAIRS, MAGICID), DREAMBOOTH),
        Table("table-3", "Table 3: rewards", (IDENTITY_REWARD, TWO_REWARDS, PAPER_PAIRS, MAGICID), IDENTITY_REWARD),
        Table(
            "figure-2a",
            "Figure 2a: likeness against clip length",
            (BASE, DREAMBOOTH, MAGICID),
            DREAMBOOTH,
            (Probe(), *(Probe(f"{frames} frames", {"generate.frames": frames}) for frames in _LENGTHS)),
            seeds=1,
        ),
        Table(
            "figure-2b",
            "Figure 2b: motion and likeness against training step",
            (DREAMBOOTH, MAGICID),
            DREAMBOOTH,
            (*(Probe(f"point {point + 1}", point=point) for point in range(CURVE_POINTS)), Probe()),
            seeds=1,
        ),
        Table("rounds", "On-policy rounds at equal total steps", (BASE, STAGE_1, MAGICID, ROUNDS), MAGICID),
        Table("paper-doses", "The paper's own doses, many more steps", (PAPER_DOSES,), PAPER_DOSES),
        Table("decisions", "Decisions", (), MAGICID, screened=True),
    )
}
"""The table `decisions` has the default and, as methods, all of `variations`."""


def methods(base: Settings) -> dict[str, Method]:
    """All methods of the tables by name.

    Args:
        base: the miniature's settings, from whose doses theirs follow.
    """
    total = base.reconstruct.steps + base.prefer.steps
    dreambooth = {"reconstruct.steps": total, "prefer.steps": 0}
    low = {"reconstruct.learning_rate": base.reconstruct.learning_rate * LOW_DOSE}
    # The ablations are of the paper's pairs: only dominance has parts of which one can be left out.
    pairs = {name: PRESETS["paper"][name] for name in ("pairs.identity_share", "pairs.dynamic_rule")}
    found = [
        Method(BASE, {"generate.adapter": "none"}, about="no adapter"),
        Method(STAGE_1, {"generate.adapter": "stage-1"}, about="MagicID's start and reference; fewer steps"),
        Method(DREAMBOOTH, dreambooth, about="stage 1 for the total number of steps"),
        Method(MAGIC_ME, other="magic-me", about="keywords before the class word for the total number of steps"),
        Method(MAGICID, about="the default recipe"),
        Method(ROUNDS, two_rounds(base), about="the second samples from the first one's adapter; half the steps each"),
        Method(
            PAPER,
            _paper_rules(base, total),
            preset="paper",
            about="`--preset paper` with its doses scaled to the total number of steps",
        ),
        Method(PAPER_DOSES, preset="paper", about="`--preset paper` as it stands"),
        Method(LOW_STAGE_1, {**low, "generate.adapter": "stage-1"}, about=f"learning rate of stage 1 times {LOW_DOSE}"),
        Method(LOW_DREAMBOOTH, {**dreambooth, **low}, about=f"learning rate of stage 1 times {LOW_DOSE}"),
        Method(LOW_MAGICID, low, about=f"learning rate of stage 1 times {LOW_DOSE}"),
        Method(IDENTITY_PAIRS, {"pairs.identity_share": 1.0}, about="no dynamic pairs, not even to fill up"),
        Method(PAPER_PAIRS, pairs, about="half of them identity pairs, dynamic pairs by dominance on the fronts"),
        Method(IDENTITY_REWARD, {**pairs, "pairs.rewards": "identity"}, about="these by the identity reward alone"),
        Method(TWO_REWARDS, {**pairs, "pairs.rewards": "identity+dynamics"}, about="these without prompt following"),
    ]
    return {method.name: method for method in [*found, *(Method(*one) for one in variations(base))]}


def _paper_rules(base: Settings, total: int) -> dict[str, Any]:
    """The paper's proportion of the stages, at the total number of steps; the repository is as the paper has it."""
    paper = PRESETS["paper"]
    first, second = paper["reconstruct.steps"], paper["prefer.steps"]
    stage_1 = max(1, round(total * first / (first + second)))
    return {"reconstruct.steps": stage_1, "prefer.steps": total - stage_1}


def two_rounds(base: Settings) -> dict[str, Any]:
    """Two rounds that take stage 2's steps together (one less where they are odd), after the same stage 1.

    Optimizer steps are what is equal: the second round samples and judges a repository of its own on top.
    """
    return {"rounds": 2, "prefer.steps": base.prefer.steps * base.rounds // 2}


def of_table(table: Table, base: Settings) -> Sequence[str]:
    """Names of a table's methods, from top to bottom."""
    if table.name != "decisions":
        return table.methods
    return [BASE, STAGE_1, DREAMBOOTH, MAGICID, *(name for name, _ in variations(base))]


# ---------------------------------------------------------------------------------------------------------- decisions


def variations(base: Settings) -> list[tuple[str, dict[str, Any]]]:
    """Single departures from the default recipe: name → settings. Those that say what is the default are left out.

    Args:
        base: the miniature's settings.
    """
    total, steps = base.reconstruct.steps + base.prefer.steps, base.prefer.steps
    rate, rate_1 = base.prefer.learning_rate, base.reconstruct.learning_rate
    half = max(1, base.reconstruct.steps // 2)
    repository = base.repository
    fewer = {
        "repository.tuned": max(1, repository.tuned // 2),
        "repository.initial": repository.initial // 2,
        "pairs.count": max(1, base.pairs.count // 2),
    }
    found: list[tuple[str, dict[str, Any]]] = [
        ("pair prompt: static", {"pairs.prompt": "static"}),
        ("pair prompt: rejected", {"pairs.prompt": "rejected"}),
        *((f"tau {tau:g}", {"pairs.tau": tau}) for tau in (0.0, 2.0, 9.0)),
        *((f"identity share {share:g}", {"pairs.identity_share": share}) for share in (0.0, 0.25, 0.5, 0.75)),
        *((f"gradient factor {factor:g}", {"prefer.gradient_factor": factor}) for factor in (0.15, 0.3, 0.45)),
        *((f"beta {beta:g}", {"prefer.beta": beta}) for beta in (100.0, 500.0, 2500.0)),
        *((f"noise: {noise}", {"prefer.noise": noise}) for noise in ("same", "independent")),
        *((f"fronts: {fronts}", {"pairs.fronts": fronts}) for fronts in ("prompt", "global")),
        ("double blocks only", {"adapter.double_blocks_only": True}),
        *((f"anchor {weight:g}", {"prefer.anchor": weight}) for weight in (0.0, 0.1, 1.0)),
        *((f"winner guard {factor:g}", {"prefer.winner_guard": factor}) for factor in (0.0, 2.0)),
        *((f"adapter from {share:.0%}", {"generate.adapter_start": share}) for share in (0.0, 0.125, 0.25, 0.5)),
        *((f"video cap {cap}", {"pairs.video_cap": cap}) for cap in (2, 10)),
        *((f"reference: {name}", {"prefer.reference": name}) for name in ("stage-1", "base")),
        *((f"rank {rank}", {"adapter.rank": rank, "adapter.alpha": float(rank)}) for rank in (4, 16, 64)),
        *((f"train guidance {value:g}", {"training.guidance": value}) for value in (1.0, base.generate.guidance)),
        *((f"stage 1 on: {clip}", {"reconstruct.clip": clip}) for clip in ("static", "frame")),
        ("training smaller (32x32)", {"shape.size": "32x32"}),
        ("dynamic rule: dominating", {"pairs.dynamic_rule": "dominating"}),
        *(
            (f"motion gap, tolerance {t:g}", {"pairs.dynamic_rule": "motion-gap", "pairs.identity_tolerance": t})
            for t in (0.5, 2.0)
        ),
        *((f"dynamics: {which}", {"pairs.dynamics": which}) for which in ("total", "subject")),
        *((f"stage 2 rate x{by:g}", {"prefer.learning_rate": rate * by}) for by in (0.3, 3.0)),
        *((f"stage 1 rate x{by:g}", {"reconstruct.learning_rate": rate_1 * by}) for by in (0.3, 0.5)),
        ("half of stage 1, more of stage 2", {"reconstruct.steps": half, "prefer.steps": total - half}),
        ("stage 2 twice as long (more steps)", {"prefer.steps": 2 * steps}),
        ("two rounds", two_rounds(base)),
        ("two rounds, half the videos and pairs each", {**two_rounds(base), **fewer}),
        ("two rounds, motion gap", {**two_rounds(base), "pairs.dynamic_rule": "motion-gap"}),
        (
            "twice the videos and pairs",
            {
                "repository.tuned": 2 * base.repository.tuned,
                "repository.initial": 2 * base.repository.initial,
                "pairs.count": 2 * base.pairs.count,
            },
        ),
    ]
    return [(name, values) for name, values in found if not _is_default(values, base)]


def points_of(settings: Settings) -> list[tuple[str, int]]:
    """(stage, its step) of figure 2b's points before the last step: every so many steps, and the end of stage 1."""
    stages = {"reconstruct": settings.reconstruct.steps}
    stages |= {named("prefer", number): settings.prefer.steps for number in range(FIRST, settings.rounds + 1)}
    apart, order = _apart(settings), list(stages)
    found = [(stage, step) for stage, steps in stages.items() for step in range(apart, steps, apart)]
    if settings.prefer.steps:
        found.append(("reconstruct", settings.reconstruct.steps))
    return sorted(found, key=lambda point: (order.index(point[0]), point[1]))[:CURVE_POINTS]


def save_every(settings: Settings) -> int:
    """Steps between checkpoints so that one falls on every point: the most up to 60."""
    apart = _apart(settings)
    return next(every for every in range(min(60, apart), 0, -1) if apart % every == 0)


def _apart(settings: Settings) -> int:
    """Steps between points: a multiple of ten where there are enough."""
    exact = (settings.reconstruct.steps + settings.prefer.steps * settings.rounds) / CURVE_POINTS
    return max(1, round(exact / 10) * 10 if exact >= 10 else round(exact))


def unknown(method: Method) -> list[str]:
    """Names of the method's settings that this version does not have."""
    return sorted(set(method.values) - set(KNOBS))


def _is_default(values: Mapping[str, Any], base: Settings) -> bool:
    from magicid_cli.config import value_of

    return all(name in KNOBS and value_of(base, name) == value for name, value in values.items())
