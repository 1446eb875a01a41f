"""T. Cons., CLIP-T and CLIP-I: frames beside each other, beside the prompt, and beside the photos.

Frames are RGB from the decoder on. The models of the drawn world and of the tests have no CLIP; what stands in its
place is said in `made_by`.
"""

from importlib.metadata import version
from typing import Any

import numpy as np

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.measure import Photos, device_of, run_on
from magicid_cli.events import Events
from magicid_cli.faces import normalised
from magicid_cli.models.catalog import DRAWN, JUDGES, STAND_INS, video_model
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.clip import ClipJudge, open_clip
from magicid_cli.rewards.drawn import DrawnJudge
from magicid_cli.rewards.dynamics import stride_for
from magicid_cli.rewards.standin import StandInJudge


class Pictures:
    """The three metrics of pictures, by the CLIP that the settings name or what the catalog has in its place.

    Args:
        settings: name the network.
        photos: of the person.
        events: hears of downloads.

    Raises:
        MagicIDError: `settings-unknown`, `gpu-missing`.
    """

    name = "pictures"
    metrics = ("consistency", "consistency_eighth", "clip_t", "clip_i")

    def __init__(self, settings: Settings, photos: Photos, events: Events) -> None:
        self._settings, self._photos, self._events = settings, photos, events
        self.network = network_name(settings)
        self._judge: ClipJudge | DrawnJudge | StandInJudge | None = None
        self._likes: np.ndarray | None = None
        if self.network in JUDGES:
            source = JUDGES[self.network].source
            commit = hub.known_commit(source) or source.revision
            read_by = f"transformers {version('transformers')}, {run_on(device_of(settings.model))}"
            self.made_by = f"{source.repo} {commit} float32, RGB, every frame, {read_by}"
        else:
            self.made_by = f"{self._open().made_by}, every frame"

    def reads(self, prompt: str | None) -> list[Any]:
        """As the Protocol says."""
        return [self._photos.key, prompt]

    def look(self, clip: Clip, prompt: str | None) -> dict[str, Any]:
        """All frames are shown.

        Returns:
            `consistency`: mean cosine of neighbouring frames, null with one frame; `consistency_eighth`: the same of
            the frames that Dyna. Deg. looks at, about 1/8 s apart; `clip_t`: 100 times the mean cosine of frames and
            prompt, null without a prompt; `clip_i`: 100 times the mean cosine of frames and photos;
            `cut`: how many tokens of the prompt were not read. In the drawn world `clip_t` is 100 times the mean
            probability of what the prompt asks for, null if it asks for nothing that the world has.

        Raises:
            MagicIDError: `model-unusable`, `photos-none-usable`, or what `hub.fetch_repo` raises.
        """
        vectors = normalised(self._open().pictures(clip.frames))
        if self._likes is None:
            shown = [self._open().pictures(picture[None])[0] for picture in self._photos.pictures()]
            self._likes = normalised(np.stack(shown))
        value, cut = (None, 0) if prompt is None else self._following(clip, prompt, vectors)
        return {
            "consistency": _consistency(vectors),
            "consistency_eighth": _consistency(vectors[:: stride_for(clip.fps)]),
            "clip_t": value,
            "clip_i": 100 * float((vectors @ self._likes.T).mean()),
            "cut": cut,
        }

    def close(self) -> None:
        """As the Protocol says."""
        if self._judge is not None:
            self._judge.close()
        self._judge = self._likes = None

    def _following(self, clip: Clip, prompt: str, vectors: np.ndarray) -> tuple[float | None, int]:
        """CLIP-T, and how many tokens were cut."""
        judge = self._open()
        if isinstance(judge, DrawnJudge):
            found = list(judge.score(Clip(clip.frames, clip.fps, prompt))["probabilities"].values())
            return (100 * float(np.mean(found)) if found else None), 0
        words, cut = judge.words(prompt)
        return 100 * float((vectors @ normalised(words)).mean()), cut

    def _open(self) -> ClipJudge | DrawnJudge | StandInJudge:
        if self._judge is None:
            if self.network in DRAWN:
                self._judge = DrawnJudge(self._events)
            elif self.network in STAND_INS:
                self._judge = StandInJudge()
            else:
                device, offline = device_of(self._settings.model), self._settings.model.offline
                # How many frames it takes of a clip by itself does not matter: all of them are given.
                self._judge = open_clip(self.network, frames=1, device=device, offline=offline, events=self._events)
        return self._judge


def _consistency(vectors: np.ndarray) -> float | None:
    """Mean cosine of neighbours among vectors `(F, D)` of length 1, None for fewer than two."""
    return float((vectors[1:] * vectors[:-1]).sum(1).mean()) if len(vectors) > 1 else None


def network_name(settings: Settings) -> str:
    """The network that the settings mean.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    wanted = settings.evaluate.clip
    name = video_model(settings.model.name).evaluation_clip if wanted == "auto" else wanted
    known = [judge.name for judge in JUDGES.values() if judge.kind == "clip"]
    if name not in (*known, *DRAWN[:1], *STAND_INS[:1]):
        raise MagicIDError(
            "settings-unknown", f"No CLIP is called '{name}'.", f"Use --clip auto or {', '.join(known)}."
        )
    return name
