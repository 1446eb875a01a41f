"""Videos in, the table's row out."""

from collections.abc import Sequence
from pathlib import Path

from magicid_cli.config import Settings
from magicid_cli.evaluation.records import Evaluation, Item
from magicid_cli.events import Events


def evaluate(
    videos: Sequence[Item],
    references: Sequence[Path],
    settings: Settings,
    *,
    store: Path,
    events: Events,
    fvd_reference: Sequence[Path] = (),
) -> Evaluation:
    """Measure videos of one person.

    What was measured before, of the same file by the same models, is taken from `store`: a second call loads no model.

    Args:
        videos: the videos, each with its prompt.
        references: photos of the person.
        settings: `model.name` decides which judges `auto` means; `rewards` and `evaluate` name others.
        store: a folder for results of single videos; made if it is missing.
        events: told about progress, downloads and what a user should know.
        fvd_reference: video files of the reference set; without any there is no FVD.

    Raises:
        MagicIDError: `photos-none-usable` if no photo shows a face, `videos-unusable` if no video can be read, or what
            opening a judge raises.
    """
    raise NotImplementedError
