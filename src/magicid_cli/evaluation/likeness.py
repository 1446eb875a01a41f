"""Face Sim: how much the person in a video looks like the photos, by two recognisers that share one search."""

from dataclasses import replace
from typing import Any

import numpy as np

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.measure import Photos, Store
from magicid_cli.events import Events
from magicid_cli.faces import Faces, evaluation_face_model, open_evaluation_faces, open_faces, signatures
from magicid_cli.models.catalog import video_model
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.identity import IdentityReward, photo_similarity, sampled
from magicid_cli.workspace import digest

JUDGE, REWARD = "face_sim", "face_sim_reward"


class Likeness:
    """Face Sim by the evaluation's recogniser and by the reward's.

    Args:
        settings: name detector, recognisers and how many frames are looked at.
        photos: of the person.
        store: keeps what was found in the photos.
        events: hears of downloads.
        commits: which commits of the networks are used, see `hub.settled`; what is not in it is settled here.

    Raises:
        MagicIDError: what opening the networks raises, if only that tells which they are.
    """

    name = "faces"
    metrics = (JUDGE, f"{JUDGE}_skipped", REWARD, f"{REWARD}_skipped", "face_found")

    def __init__(
        self, settings: Settings, photos: Photos, store: Store, events: Events, commits: hub.Commits | None = None
    ) -> None:
        # What is said to have judged is what is opened later, whatever a branch means by then.
        self._commits = {} if commits is None else commits
        self._settings, self._photos, self._store, self._events = settings, photos, store, events
        self._faces: tuple[Faces, Faces] | None = None
        self._people: dict[str, IdentityReward] = {}
        self._detector, *recognisers = self._signed() or self._opened_signs()
        self.recognisers = dict(zip((JUDGE, REWARD), recognisers, strict=True))
        most = settings.evaluate.face_frames
        self.sampling = f"every k-th frame, at most {most}" if most else "every frame"
        self.made_by = f"{self._detector}; {'; '.join(recognisers)}; {self.sampling}, one person followed"

    def reads(self, prompt: str | None) -> list[Any]:
        """As the Protocol says."""
        return [self._photos.key]

    def look(self, clip: Clip, prompt: str | None) -> dict[str, Any]:
        """Face Sim of the person who is followed through the clip.

        Returns:
            `face_sim` and `face_sim_reward`: the mean cosine over the frames looked at, 0 for a frame without the face
            and for a negative cosine; with `_skipped`: the mean raw cosine over the frames with the face, null without
            any; `face_found`; `frames` that were looked at, and raw `cosines` and `relative` by recogniser.

        Raises:
            MagicIDError: `photos-none-usable`, or what opening the networks raises.
        """
        people = self._persons()
        detector = self._open()[0].detector
        looked_at = sampled(len(clip.frames), self._settings.evaluate.face_frames or len(clip.frames))
        found = [detector.find(clip.frames[index]) for index in looked_at]
        seen = {name: who.likeness(clip.frames, looked_at, found) for name, who in people.items()}
        row: dict[str, Any] = {"face_found": seen[JUDGE]["found"], "frames": looked_at, "cosines": {}, "relative": {}}
        for name, one in seen.items():
            shown = [cosine for cosine in one["cosines"] if cosine is not None]
            row |= {name: one["value"], f"{name}_skipped": float(np.mean(shown)) if shown else None}
            row["cosines"][name], row["relative"][name] = one["cosines"], one["relative"]
        return row | {"halves": [seen[JUDGE]["first_half"], seen[JUDGE]["second_half"]]}

    def describe(self, metric: str) -> str:
        """`made_by` of `face_sim` or of `face_sim_reward` alone."""
        return f"{self._detector}; {self.recognisers[metric]}; {self.sampling}, one person followed"

    def about_photos(self) -> dict[str, Any]:
        """`photos`, how many there are; `with_face`; `similarity`, how alike they are by the evaluation's recogniser.

        Raises:
            MagicIDError: as `look`.
        """
        key = digest(["photos", self.made_by, self._photos.key])
        kept = self._store.get(key)
        if kept is None:
            vectors = self._vectors(self._open()[0])
            unreadable = dict(self._photos.unreadable)
            kept = {"photos": len(self._photos.paths), "with_face": len(vectors), "unreadable": unreadable}
            kept["similarity"] = photo_similarity(vectors)
            self._store.put(key, kept)
        return kept

    def close(self) -> None:
        """As the Protocol says."""
        self._faces, self._people = None, {}

    def _signed(self) -> list[str] | None:
        """Detector, the evaluation's recogniser and the reward's, as far as nothing has to be opened to know them."""
        rewards, model = self._settings.rewards, video_model(self._settings.model.name)
        offline, commits = self._settings.model.offline, self._commits
        name = evaluation_face_model(rewards, model, offline=offline, events=self._events, commits=commits)
        found = [signatures(replace(rewards, face_model=one), model, commits) for one in (name, rewards.face_model)]
        if found[0] is None or found[1] is None:
            return None
        return [found[0][0], found[0][1], found[1][1]]

    def _opened_signs(self) -> list[str]:
        judge, reward = self._open()
        return [judge.detector.made_by, judge.recogniser.made_by, reward.recogniser.made_by]

    def _open(self) -> tuple[Faces, Faces]:
        if self._faces is None:
            rewards, model = self._settings.rewards, video_model(self._settings.model.name)
            offline, commits = self._settings.model.offline, self._commits
            judge = open_evaluation_faces(rewards, model, offline=offline, events=self._events, commits=commits)
            reward = open_faces(rewards, model, offline=offline, events=self._events, commits=commits)
            self._faces = judge, reward
        return self._faces

    def _persons(self) -> dict[str, IdentityReward]:
        if not self._people:
            judge, reward = self._open()
            self._people = {
                JUDGE: IdentityReward(judge, self._vectors(judge)),
                REWARD: IdentityReward(reward, self._vectors(reward)),
            }
        return self._people

    def _vectors(self, faces: Faces) -> np.ndarray:
        """The largest face of every photo that has one, `(N, D)`."""
        pictures = self._photos.pictures()
        found = [(picture, faces.detector.find(picture)) for picture in pictures]
        vectors = [faces.recogniser.embed(picture, there[0]) for picture, there in found if there]
        if not vectors:
            raise MagicIDError(
                "photos-none-usable",
                f"No face was found in any of the {len(pictures)} photos of the person: nothing to compare with.",
                faces.detector.advice,
            )
        return np.stack(vectors)
