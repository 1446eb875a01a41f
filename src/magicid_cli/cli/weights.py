"""Which weights the settings choose, whose they are and what their licence says."""

from dataclasses import asdict, dataclass
from typing import Any

from magicid_cli.cli.output import Table
from magicid_cli.config import Settings
from magicid_cli.models.catalog import DRAWN, FACE_MODELS, JUDGES, METHOD_WEIGHTS, VIDEO_MODELS, Source, video_model

# Of what comes with magicid: trained on drawings that magicid makes itself.
PACKAGED_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Weights:
    """Weights that a run needs.

    Attributes:
        what: the role, for people.
        name: of the catalog, or what the user typed.
        source: where they come from; None for what comes with magicid, is built on this machine or is the user's file.
        packaged: whether they come with magicid.
    """

    what: str
    name: str
    source: Source | None
    packaged: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)


def chosen(settings: Settings) -> list[Weights]:
    """The weights that these settings lead to.

    Raises:
        MagicIDError: `settings-unknown` for a model that does not exist.
    """
    model, rewards = video_model(settings.model.name), settings.rewards
    finder = model.face_detector if rewards.face_detector == "auto" else rewards.face_detector
    recogniser = model.face_model if rewards.face_model == "auto" else rewards.face_model
    judge = model.vlm if rewards.vlm == "auto" else rewards.vlm
    return [
        Weights("video model", model.name, model.source, bool(model.packaged)),
        *(
            Weights(what, name, FACE_MODELS[name].source if name in FACE_MODELS else None, name in DRAWN)
            for what, name in (("face finder", finder), ("face recogniser", recogniser))
        ),
        Weights("judge of prompt following", judge, JUDGES[judge].source if judge in JUDGES else None, judge in DRAWN),
    ]


def table(weights: list[Weights]) -> Table:
    """The weights with their licences."""
    from magicid_cli.cli.identity import gigabytes

    return Table(
        ("WEIGHTS", "NAME", "REPOSITORY", "SIZE", "LICENCE"),
        [
            (
                one.what,
                one.name,
                one.source.repo if one.source else "comes with magicid" if one.packaged else "made on this machine",
                gigabytes(one.source.gigabytes * 1e9) if one.source else "-",
                licence(one.source) if one.source else PACKAGED_LICENCE if one.packaged else "-",
            )
            for one in weights
        ],
    )


def licence(source: Source) -> str:
    """The licence's name, and that it forbids commercial use if it does."""
    return source.licence if source.commercial else f"{source.licence} (no commercial use)"


def licences() -> dict[str, str]:
    """Repository → licence, for everything in the catalog."""
    sources = [
        *(model.source for model in VIDEO_MODELS.values()),
        *(model.source for model in FACE_MODELS.values()),
        *(judge.source for judge in JUDGES.values()),
        *(one.source for brought in METHOD_WEIGHTS.values() for one in brought),
    ]
    return {source.repo: licence(source) for source in sources if source is not None}
