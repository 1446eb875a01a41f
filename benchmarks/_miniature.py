"""What the miniature and its judges do, as figures; the benchmark `mini` and the tests of its gates share this.

People are those on whom nothing was trained, and scenes those that no training and no choice of a dose has looked at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np

from magicid_cli import models
from magicid_cli.config import MODEL_DEFAULTS, ModelSettings, Settings, with_values
from magicid_cli.events import Events
from magicid_cli.faces.base import Detector, Recogniser, normalised
from magicid_cli.models.base import Family, Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.world import captions, clips
from magicid_cli.world.networks import EMBEDDING
from magicid_cli.world.people import HELD_OUT
from magicid_cli.world.training.verification import auc, pairs

REWARD, JUDGE = video_model("mini").face_model, video_model("mini").evaluation_face_model
"""The names of the two face encoders: the identity reward's, and the evaluation's."""
PARTS = ("action", "place", "outfit")
SETTINGS = with_values(Settings(), MODEL_DEFAULTS["mini"])
"""The miniature's own, whatever the user's files say."""
SHAPE = Shape(clips.FRAMES, clips.SIZE, clips.SIZE)

_CODEC, _SAMPLES, _SCORER, _FACES = 8_000_000, 8_100_000, 8_200_000, 8_300_000
_SHOTS = 4  # pictures of a person
_SIDE = 128  # pixels of the shorter side at which motion is stated


@dataclass(frozen=True, eq=False)
class Studio:
    """All that is measured, ready.

    Attributes:
        family: the miniature with every part loaded.
        finder: of drawn faces.
        encoders: name → recogniser of drawn faces.
        scorer: of prompts.
        motion: of clips.
    """

    family: Family
    finder: Detector
    encoders: dict[str, Recogniser]
    scorer: Reward
    motion: Reward


def family() -> Family:
    """The packaged miniature on the CPU, every part loaded.

    Raises:
        MagicIDError: `model-unusable`.
    """
    opened = models.open_family(ModelSettings(name="mini", device="cpu"), Events())
    for part in ("text", "vae", "transformer"):
        opened.load(part)
    return opened


def studio() -> Studio:
    """The packaged miniature and its judges.

    Raises:
        MagicIDError: `model-unusable`.
    """
    from magicid_cli.faces.drawn import DrawnDetector, DrawnRecogniser
    from magicid_cli.rewards.drawn import DrawnJudge
    from magicid_cli.rewards.dynamics import DynamicsReward

    encoders: dict[str, Recogniser] = {name: DrawnRecogniser(name) for name in (REWARD, JUDGE)}
    return Studio(family(), DrawnDetector(), encoders, DrawnJudge(Events()), DynamicsReward("dis"))


def sampled(model: Family, prompt: str, seed: int) -> np.ndarray:
    """A video of the untouched model with the settings of `generate`, uint8 RGB `(9, 48, 48, 3)`."""
    wanted = SETTINGS.generate
    text = model.encode_text(prompt)
    return model.decode(model.sample(text, SHAPE, steps=wanted.steps, guidance=wanted.guidance, seed=seed))


def motion(what: Studio, frames: np.ndarray) -> float:
    """The dynamics reward in pixels per frame, the shorter side taken as 128 pixels."""
    from magicid_cli.rewards.dynamics import SHORT_SIDE

    return float(what.motion.score(Clip(frames, clips.FPS, ""))["value"]) * _SIDE / SHORT_SIDE


def true_motion(what: Studio, scene: clips.Scene) -> float:
    """As `motion`, of the drawn clip of a scene, drawn at the size at which motion is measured.

    Drawn at the miniature's own size and enlarged, its hard edges lead dense search astray: the mean over the actions
    that move was 1.27 times as large (42 clips), while the softer clips that come out of the autoencoder read as here.
    """
    from magicid_cli.rewards.dynamics import SHORT_SIDE

    return motion(what, clips.render(scene, size=SHORT_SIDE).frames)


# ------------------------------------------------------------------------------------------------------ autoencoder


@dataclass(frozen=True, eq=False)
class Codec:
    """What the autoencoder makes of clips.

    Attributes:
        whole_db: peak signal-to-noise ratio of all pixels together.
        face_db: of the pixels in the faces' boxes.
        cosine: mean of a face before and after, by the reward's encoder; 0 where it is found no more.
        static_px: motion of clips that stand still, after it.
        motion_px: motion of the clips before and after.
        action_db: as `whole_db`, of the clips of each action.
        shown: clips before and after, uint8 `(F, S, S, 3)`.
    """

    whole_db: float
    face_db: float
    cosine: float
    static_px: float
    motion_px: tuple[float, float]
    action_db: dict[str, float]
    shown: list[tuple[np.ndarray, np.ndarray]]


def codec(what: Studio, count: int) -> Codec:
    """Send `count` clips, and the first frame of each standing still, through the autoencoder."""
    faces, cosines, static, shown = [], [], [], []
    errors: dict[str, list[float]] = {}
    for number in range(count):
        scene = clips.scene(_CODEC + number, people=HELD_OUT)
        drawn = clips.render(scene)
        made = what.family.decode(what.family.encode_video(drawn.frames))
        shown.append((drawn.frames, made))
        squares = np.square(drawn.frames.astype(np.float64) - made)
        errors.setdefault(scene.action, []).append(float(squares.mean()))
        faces += [squares[index][_inside(face.box)] for index, face in enumerate(drawn.faces)]
        cosines += _cosines(what, drawn.frames, made)
        still = what.family.decode(what.family.encode_static(drawn.frames[0], clips.FRAMES))
        static.append(motion(what, still))
    moved = [float(np.mean([motion(what, pair[side]) for pair in shown])) for side in (0, 1)]
    in_faces = np.concatenate([part.ravel() for part in faces])
    return Codec(
        whole_db=decibels(float(np.mean(list(chain(*errors.values()))))),
        face_db=decibels(float(in_faces.mean())),
        cosine=float(np.mean(cosines)) if cosines else 0.0,
        static_px=float(np.mean(static)),
        motion_px=(moved[0], moved[1]),
        action_db={action: decibels(float(np.mean(found))) for action, found in sorted(errors.items())},
        shown=shown,
    )


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of values from 0 to 255."""
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _inside(box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """The pixels of a box given in units of the frame's side."""
    x, y, width, height = (round(edge * clips.SIZE) for edge in box)
    return slice(max(0, y), max(0, y + height)), slice(max(0, x), max(0, x + width))


def _cosines(what: Studio, before: np.ndarray, after: np.ndarray) -> list[float]:
    """Of each frame whose face is found before; both times by the finder, as a reward would."""
    encoder, found = what.encoders[REWARD], []
    for first, second in zip(before, after, strict=True):
        true, made = what.finder.find(first), what.finder.find(second)
        if true:
            found.append(float(encoder.embed(first, true[0]) @ encoder.embed(second, made[0])) if made else 0.0)
    return found


# ------------------------------------------------------------------------------------------------------------ judges


def scorer_rates(what: Studio, count: int) -> dict[str, float]:
    """Shares of drawn clips whose action, place and outfit the scorer says rightly."""
    scenes = [clips.scene(_SCORER + number, people=HELD_OUT) for number in range(count)]
    return rates(seen(what, (clips.render(scene).frames for scene in scenes)), scenes)


@dataclass(frozen=True)
class Verification:
    """How well an encoder tells people apart, and in what share of the pictures a face was found."""

    auc: float
    found: float


def verification(what: Studio, people: range) -> dict[str, Verification]:
    """Each encoder on pairs of pictures of different scenes; a face that is not found is like nobody's.

    Args:
        what: what is measured.
        people: who may be shown.
    """
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in what.encoders}
    found = 0
    for number, who in enumerate(np.repeat(people, _SHOTS).tolist()):
        scene = clips.scene(_FACES + number, people=range(who, who + 1))
        moment = (1 + number % (clips.FRAMES - 1)) / clips.FPS
        frame = clips.render(scene, frames=2, fps=1 / moment).frames[1]
        faces = what.finder.find(frame)
        found += bool(faces)
        for name, encoder in what.encoders.items():
            vectors[name].append(encoder.embed(frame, faces[0]) if faces else np.zeros(EMBEDDING))
    share = found / (_SHOTS * len(people))
    grouped = {name: np.stack(rows).reshape(len(people), _SHOTS, -1) for name, rows in vectors.items()}
    return {name: Verification(auc(*pairs(rows)), share) for name, rows in grouped.items()}


# ------------------------------------------------------------------------------------------------------ base samples


@dataclass(frozen=True, eq=False)
class Samples:
    """Videos of the untouched model beside drawn clips of the same scenes, uint8 `(N, F, S, S, 3)` each."""

    scenes: list[clips.Scene]
    true: np.ndarray
    made: np.ndarray


def scenes(count: int) -> list[clips.Scene]:
    """Scenes in which actions, places and outfits take turns, each with a person of its own."""
    turns = [
        (
            list(captions.ACTION_PHRASES)[number % len(captions.ACTION_PHRASES)],
            list(captions.PLACE_PHRASES)[number % len(captions.PLACE_PHRASES)],
            # One further each round, or a place would always come with the same outfit.
            list(captions.OUTFIT_PHRASES)[(number + number // 8) % len(captions.OUTFIT_PHRASES)],
        )
        for number in range(count)
    ]
    return [
        replace(
            clips.scene(_SAMPLES + number, people=HELD_OUT[number : number + 1]),
            action=action,
            place=place,
            outfit=outfit,
        )
        for number, (action, place, outfit) in enumerate(turns)
    ]


def samples(what: Studio, count: int) -> Samples:
    """A video for the caption of each of `count` scenes, every one with a seed of its own."""
    chosen = scenes(count)
    made = [sampled(what.family, scene.caption(), _SAMPLES + number) for number, scene in enumerate(chosen)]
    return Samples(chosen, np.stack([clips.render(scene).frames for scene in chosen]), np.stack(made))


def seen(what: Studio, videos: Iterable[np.ndarray]) -> list[dict[str, str]]:
    """What the scorer takes each video for: an action, a place and an outfit."""
    anything = "A woman walks."  # what a video is taken for does not depend on its prompt
    return [what.scorer.score(Clip(frames, clips.FPS, anything))["seen"] for frames in videos]


def rates(found: Sequence[dict[str, str]], wanted: Sequence[clips.Scene]) -> dict[str, float]:
    """Shares of videos whose action, place and outfit are those of their scene."""
    return {
        part: float(np.mean([one[part] == getattr(scene, part) for one, scene in zip(found, wanted, strict=True)]))
        for part in PARTS
    }


@dataclass(frozen=True)
class Cast:
    """Who is seen in samples.

    Attributes:
        chance: that two samples look more alike than the two people who were drawn for the same two prompts: 0.5 if
            the model shows somebody new every time.
        found: share of samples in which a face was found.
        steadiness: how much the face stays one through a video, drawn and sampled: length of the mean vector, 1 if all
            frames show the same.
    """

    chance: float
    found: float
    steadiness: tuple[float, float]


def cast(what: Studio, videos: Samples, encoder: str) -> Cast:
    """Compare the faces of all pairs of samples."""
    true, made = _people(what, videos.true, encoder), _people(what, videos.made, encoder)
    couples = list(combinations(range(len(made)), 2))
    of_people, of_samples = (
        np.array([rows[first] @ rows[second] for first, second in couples]) for rows in map(normalised, (true, made))
    )
    lengths = [np.linalg.norm(rows, axis=1) for rows in (true, made)]
    return Cast(
        chance=auc(of_samples, of_people),
        found=float((lengths[1] > 0).mean()),
        steadiness=(float(lengths[0].mean()), float(lengths[1].mean())),
    )


def _people(what: Studio, videos: np.ndarray, encoder: str) -> np.ndarray:
    """Who is in each video: the mean of the vectors of every second frame, or zero where no face is found."""
    rows = []
    for frames in videos:
        faces = [(frame, what.finder.find(frame)) for frame in frames[::2]]
        found = [what.encoders[encoder].embed(frame, there[0]) for frame, there in faces if there]
        rows.append(np.mean(found, axis=0) if found else np.zeros(EMBEDDING))
    return np.stack(rows)
