"""Faces in a picture: where they are, cut out upright at 112 pixels, and as a vector that tells people apart.

Detection is YuNet through OpenCV's `FaceDetectorYN`; recognition is any network of the ArcFace family as an ONNX file
through OpenCV's DNN module. For the `tiny` model there are stand-ins that need no download; they say so in their name.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from magicid_cli import hub
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.catalog import FACE_MODELS, FaceModel, VideoModel

CROP = 112
"""Side of an aligned face, in pixels."""

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""Where the five landmarks lie in an aligned face (ArcFace and SFace alike): x, y in pixels of the crop."""

STAND_IN = "stand-in"

# One photo of a person against the mean of the person's other photos: cosines below this are somebody else. The
# pair threshold published for SFace is 0.363; against a mean of good photos a profile of the same person falls below
# it, so the bar is lower. Networks trained with the ArcFace loss spread strangers closer around 0.
_SAME_PERSON = {"sface": 0.25, "arcface": 0.2}


# OpenCV's SFace file scales its input itself; a copy of it given by path is recognised by its content.
_SFACE_SHA256 = "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79"


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture.

    Attributes:
        box: x, y, width, height in pixels of the picture; it may reach outside.
        landmarks: (5, 2) x, y of right eye, left eye, nose tip, right and left mouth corner (the person's right).
        score: the detector's confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def side(self) -> float:
        """The box's shorter side in pixels."""
        return min(self.box[2:])

    @property
    def area(self) -> float:
        """The box's area in pixels."""
        return self.box[2] * self.box[3]


class Detector(Protocol):
    """Finds faces.

    Attributes:
        name: what the user types.
        made_by: name, commit and licence; part of every stored score.
    """

    name: str
    made_by: str

    def find(self, image: np.ndarray) -> list[Face]:
        """All faces in a uint8 RGB picture `(H, W, 3)`, the largest first."""


class Recogniser(Protocol):
    """Turns a face into a vector.

    Attributes:
        name: what the user types.
        made_by: name, commit and licence; part of every stored score.
        same_person: smallest cosine between a photo and the mean of the same person's other photos.
    """

    name: str
    made_by: str
    same_person: float

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(D,)` of length 1; cosines are dot products."""


@dataclass(frozen=True)
class Faces:
    """A detector and a recogniser that work together."""

    detector: Detector
    recogniser: Recogniser


class YuNet:
    """The YuNet face detector.

    Args:
        path: the ONNX file.
        made_by: name, commit and licence.

    Raises:
        MagicIDError: `face-model-unusable`.
    """

    name = "yunet"
    SIDE = 640
    LARGE_SIDE = 1280
    SMALL_SIDE = 320
    MIN_SCORE = 0.7

    def __init__(self, path: Path, made_by: str) -> None:
        self.made_by = made_by
        cv2 = _opencv()
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.MIN_SCORE, 0.3, 5000)
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise _unusable(path, "a YuNet face detector") from error

    def find(self, image: np.ndarray) -> list[Face]:
        """All faces, the largest first.

        The picture is looked at with its longest side at 640 pixels (or its own size, if smaller). Only if nothing is
        found there, it is looked at larger (small faces in a large picture), then at 320 (a face that fills it).
        """
        longest = max(image.shape[:2])
        sides = [min(longest, self.SIDE), *([self.LARGE_SIDE] if longest > self.SIDE else []), self.SMALL_SIDE]
        for side in dict.fromkeys(sides):
            found = self._find_at(image, side)
            if found:
                return found
        return []

    def _find_at(self, image: np.ndarray, side: int) -> list[Face]:
        cv2 = _opencv()
        height, width = image.shape[:2]
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        self._net.setInputSize(size)
        _, rows = self._net.detect(np.ascontiguousarray(image[..., ::-1]))
        if rows is None:
            return []
        back = np.array([width / size[0], height / size[1]])
        faces = [_face(row, back) for row in rows.astype(np.float64) if np.isfinite(row).all()]
        return sorted(faces, key=lambda face: (-face.area, face.box))


def _face(row: np.ndarray, back: np.ndarray) -> Face:
    """One row of YuNet's answer (box, five landmarks, score) in pixels of the original picture."""
    x, y, width, height = (row[:4].reshape(2, 2) * back).ravel().tolist()
    return Face((x, y, width, height), (row[4:14].reshape(5, 2) * back).astype(np.float32), float(row[14]))


class StandInDetector:
    """Takes the middle of any picture for a face, so that everything can run without weights."""

    name = STAND_IN
    made_by = "stand-in (the middle of the picture)"

    def find(self, image: np.ndarray) -> list[Face]:
        """One face: its box is the middle half of the largest centred square, its aligned crop that square."""
        height, width = image.shape[:2]
        side = min(height, width)
        corner = np.array([(width - side) / 2, (height - side) / 2])
        landmarks = ((TEMPLATE + 0.5) * side / CROP - 0.5 + corner).astype(np.float32)
        x, y = (corner + side / 4).tolist()
        return [Face((x, y, side / 2, side / 2), landmarks, 1.0)]


class OnnxRecogniser:
    """A face recogniser of the ArcFace family: a 112-pixel RGB face in, one vector out.

    Args:
        path: the ONNX file.
        kind: `sface` (values 0 to 255) or `arcface` ((x - 127.5) / 127.5).
        name: what the user types.
        made_by: name, commit and licence.

    Raises:
        MagicIDError: `face-model-unusable` if the file is no such network.
    """

    def __init__(self, path: Path, kind: str, *, name: str, made_by: str) -> None:
        self.name = name
        self.made_by = made_by
        self.same_person = _SAME_PERSON[kind]
        self._scale, self._mean = (1.0, 0.0) if kind == "sface" else (1 / 127.5, 127.5)
        cv2 = _opencv()
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
            outputs = self._net.getUnconnectedOutLayersNames()
            answer = self._forward(np.full((CROP, CROP, 3), 127, np.uint8))
        except cv2.error as error:
            raise _unusable(path, "a 112-pixel ArcFace network") from error
        if not (len(outputs) == 1 and answer.ndim == 1 and answer.size >= 16 and np.isfinite(answer).all()):
            raise _unusable(path, "a 112-pixel ArcFace network")

    def _forward(self, crop: np.ndarray) -> np.ndarray:
        self._net.setInput(_opencv().dnn.blobFromImage(crop, self._scale, (CROP, CROP), (self._mean,) * 3))
        answer: np.ndarray = self._net.forward()
        return answer.astype(np.float32).squeeze()

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(D,)` of length 1."""
        return normalised(self._forward(align(image, face.landmarks)))


class StandInRecogniser:
    """A fixed random projection of the aligned face: it tells pictures apart, not people."""

    name = STAND_IN
    made_by = "stand-in (random projection)"
    same_person = -1.0

    def __init__(self) -> None:
        self._projection = np.random.default_rng(20250317).standard_normal((3 * 16 * 16, 128)).astype(np.float32)

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(128,)` of length 1."""
        crop = align(image, face.landmarks).astype(np.float32)
        small = crop.reshape(16, CROP // 16, 16, CROP // 16, 3).mean((1, 3)).ravel()
        return normalised((small - small.mean()) @ self._projection)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(…, D)` scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity transform that maps points with the least squared error (Umeyama 1991, equations 40 to 42).

    Args:
        source: (N, 2) points.
        target: (N, 2) points.

    Returns:
        (2, 3) matrix `[s·R | t]`: rotation (never a reflection), uniform scale, translation.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    left, singular, right = np.linalg.svd((target - target_mean).T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    scale = (singular * signs).sum() / max(centred.var(0).sum(), 1e-12)
    rotation = scale * (left * signs) @ right
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def align(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face turned and scaled so that its landmarks fall on `TEMPLATE`.

    A face much larger than the crop is first shrunk by area: sampling it directly would alias.

    Args:
        image: uint8 `(H, W, 3)`.
        landmarks: (5, 2) in pixels of the picture.

    Returns:
        uint8 `(112, 112, 3)`; black outside the picture.
    """
    cv2 = _opencv()
    matrix = similarity(landmarks, TEMPLATE)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        height, width = image.shape[:2]
        size = max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        # Pixel centres lie at whole numbers: shrinking maps x to (x + 0.5) · f - 0.5.
        landmarks = (landmarks.astype(np.float64) + 0.5) * (np.array(size) / (width, height)) - 0.5
        matrix = similarity(landmarks, TEMPLATE)
    return cv2.warpAffine(image, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR)


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of an aligned face: low means blurred (or enlarged from few pixels)."""
    cv2 = _opencv()
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def open_faces(rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events) -> Faces:
    """The detector and the recogniser that the settings name, fetched if they are not here yet.

    Args:
        rewards: `auto` stands for what the catalog names for the video model.
        model: the video model.
        offline: use only what is in the cache.
        events: hears of downloads and of the licence of a recogniser asked for by name.

    Raises:
        MagicIDError: `face-model-missing` for a file that is not there, `face-model-unusable` for one that is no such
            network, `settings-unknown` for a name that is no recogniser, or what `hub.fetch_file` raises.
    """
    detector = rewards.face_detector if rewards.face_detector != "auto" else model.face_detector
    recogniser = rewards.face_model if rewards.face_model != "auto" else model.face_model
    return Faces(
        _open_detector(detector, offline=offline, events=events),
        _open_recogniser(recogniser, by_name=rewards.face_model != "auto", offline=offline, events=events),
    )


def _open_detector(name: str, *, offline: bool, events: Events) -> Detector:
    if name == STAND_IN:
        return StandInDetector()
    path, made_by = _fetch(FACE_MODELS[name], offline=offline, events=events)
    return YuNet(path, made_by)


def _open_recogniser(name: str, *, by_name: bool, offline: bool, events: Events) -> Recogniser:
    if name == STAND_IN:
        return StandInRecogniser()
    known = FACE_MODELS.get(name)
    if known is None:
        return _open_file(name, events)
    if known.kind == "yunet":
        raise MagicIDError("settings-unknown", f"'{name}' finds faces, it does not recognise them.", _names_hint())
    if by_name:
        use = "" if known.source.commercial else " It must not be used commercially."
        events.notice(f"Face recogniser {name}, licence: {known.source.licence}.{use}")
    path, made_by = _fetch(known, offline=offline, events=events)
    return OnnxRecogniser(path, known.kind, name=name, made_by=made_by)


def _open_file(name: str, events: Events) -> Recogniser:
    """A recogniser of the user's own."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise MagicIDError(
            "face-model-missing", f"'{name}' is neither the name of a face recogniser nor a file.", _names_hint()
        )
    events.notice(
        f"Face recogniser {path.name} is your own file: whether its licence allows your use is yours to check."
    )
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    made_by = f"{path.name} sha256:{content[:16]} (licence unknown)"
    kind = "sface" if content == _SFACE_SHA256 else "arcface"
    return OnnxRecogniser(path, kind, name=path.name, made_by=made_by)


def _fetch(model: FaceModel, *, offline: bool, events: Events) -> tuple[Path, str]:
    fetched = hub.fetch_file(model.source, model.file, offline=offline, events=events)
    return fetched.path, f"{model.name} {fetched.commit} ({model.source.licence})"


def _names_hint() -> str:
    names = ", ".join(name for name, model in FACE_MODELS.items() if model.kind != "yunet")
    return f"Names: {names}; or give the path of a 112-pixel ArcFace ONNX file to --face-model."


def _unusable(path: Path, what: str) -> MagicIDError:
    return MagicIDError(
        "face-model-unusable",
        f"{path.name} is not {what} that OpenCV can run.",
        "If it was downloaded, remove it with `magicid cache` and try again; else choose another with --face-model.",
    )


def _opencv() -> Any:
    """OpenCV without its remarks on stderr: what goes wrong arrives as an exception."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
