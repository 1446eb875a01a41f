"""Who writes the captions of photos: a template, the vision-language model, or the reader of the drawn world."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from magicid_cli.config import PhotoSettings, RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.catalog import JUDGES, VideoModel
from magicid_cli.prompts import captions, drawn
from magicid_cli.prompts.captions import Caption, Captioner

if TYPE_CHECKING:
    import numpy as np

    from magicid_cli.rewards.drawn import DrawnJudge
    from magicid_cli.rewards.qwen import Qwen

TEMPLATE = "template"
_TOKENS = 80  # an answer of twice the words that are asked for


class Template:
    """The same caption for every photo; needs no model."""

    at_once = 1000

    def __init__(self, text: str) -> None:
        self._text = text
        self.made_by = f"template: {text}"

    def captions(self, crops: "Sequence[np.ndarray]") -> list[Caption]:
        """The text, for each."""
        return [Caption(self._text)] * len(crops)

    def close(self) -> None:
        """Nothing to give back."""


class Looking:
    """The vision-language model looks at each photo and finishes the caption's sentence, always in the same words."""

    at_once = 4

    def __init__(self, qwen: "Qwen", class_word: str) -> None:
        self._qwen, self._class_word = qwen, class_word
        self.made_by = f"{qwen.made_by} {captions.wording(class_word)}"

    def captions(self, crops: "Sequence[np.ndarray]") -> list[Caption]:
        """What the model says of each, checked."""
        from magicid_cli.rewards.qwen import Question, shrunk

        start = captions.beginning(self._class_word)
        text = captions.QUESTION.format(beginning=start)
        questions = [Question((shrunk(crop), text), answer=start) for crop in crops]
        answers = self._qwen.write(questions, tokens=_TOKENS)
        return [captions.checked(answer, self._class_word) for answer in answers]

    def close(self) -> None:
        """Drop the model."""
        self._qwen.close()


class Reading:
    """The classifier of the drawn world names place and outfit of a drawn photo where it is sure of them."""

    at_once = 1000

    def __init__(self, judge: "DrawnJudge", class_word: str) -> None:
        self._judge, self._class_word = judge, class_word
        self.made_by = f"{judge.made_by} caption {drawn.SURE:g} {class_word}"

    def captions(self, crops: "Sequence[np.ndarray]") -> list[Caption]:
        """In the words of that world's grammar."""
        return [Caption(drawn.seen_caption(self._class_word, self._judge.look(crop[None]))) for crop in crops]

    def close(self) -> None:
        """Drop the network."""
        self._judge.close()


def open_captioner(
    photos: PhotoSettings, rewards: RewardSettings, model: VideoModel, *, device: str, offline: bool, events: Events
) -> Captioner:
    """The captioner that the settings name, its weights on disk and not yet in memory.

    Args:
        photos: `captions` says who writes.
        rewards: `vlm` says which model that is; it is read only if one writes.
        model: the video model; what is drawn has captions of its own.
        device: `cuda` or `cpu`.
        offline: use only weights that are in the cache.
        events: where downloads are reported.

    Raises:
        MagicIDError: `settings-unknown`, `settings-invalid`, or what `hub.fetch_repo` raises.
    """
    if photos.captions == TEMPLATE:
        return Template((drawn.photo_caption if model.drawn else captions.template)(photos.class_word))
    name = writer_name(rewards, model)
    if model.drawn:
        from magicid_cli.rewards.drawn import DrawnJudge

        return Reading(DrawnJudge(events), photos.class_word)
    from magicid_cli.rewards.qwen import open_qwen

    return Looking(open_qwen(name, device=device, offline=offline, events=events), photos.class_word)


def writer_name(rewards: RewardSettings, model: VideoModel) -> str:
    """The name of the model that writes captions and prompts.

    Raises:
        MagicIDError: `settings-unknown` for a name that does not exist, `settings-invalid` for a model that cannot
            write for this video model.
    """
    from magicid_cli.rewards.semantics import DRAWN, judge_name

    name = judge_name(rewards, model)
    writes = name == DRAWN if model.drawn else name in JUDGES and JUDGES[name].kind == "qwen3-vl"
    if writes:
        return name
    able: list[Any] = [DRAWN] if model.drawn else [one.name for one in JUDGES.values() if one.kind == "qwen3-vl"]
    raise MagicIDError(
        "settings-invalid",
        f"The judge '{name}' cannot write captions or prompts for {model.name}.",
        f"Use --vlm with one of: {', '.join(able)}; the default --captions {TEMPLATE} needs none.",
    )
