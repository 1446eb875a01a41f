"""Face networks that OpenCV runs: the YuNet detector, and recognisers of the ArcFace family as ONNX files."""

from pathlib import Path

import numpy as np

from magicid_cli.alignment import opencv, square
from magicid_cli.errors import MagicIDError
from magicid_cli.faces.base import CROP, Face, align, normalised

# One photo of a person against the mean of the person's other photos: cosines below this are somebody else. The
# pair threshold published for SFace is 0.363; against a mean of good photos a profile of the same person falls below
# it, so the bar is lower. Networks trained with the ArcFace loss spread strangers closer around 0.
_SAME_PERSON = {"sface": 0.25, "arcface": 0.2}


class YuNet:
    """The YuNet face detector, looking more than once.

    The network knows faces of about 10 to 300 pixels, scores one of 10 lower, and tells its landmarks from one of 20
    or 30 three times worse than from one of 50. So the whole picture is looked at with its longest side at 640 pixels
    and at 320, where a face that fills it is small enough; if nothing large enough is seen, also at 1280. What is then
    smaller than `CLEAR` pixels is a guess, and is looked at again, alone and enlarged: that look says whether it is a
    face and where its landmarks are.

    Args:
        path: the ONNX file.
        made_by: name, commit and licence.

    Raises:
        MagicIDError: `face-model-unusable`.
    """

    name = "yunet"
    advice = "Use one with the face in view, lit and not tiny."
    SIDES = (640, 320)
    CLOSER = 1280
    CLEAR = 48
    """Shorter side, in pixels as the network sees it, from which on a face is believed at once."""
    ENOUGH = 24
    """The same of the largest face, below which the whole picture is looked at larger."""
    GUESS, MIN_SCORE = 0.5, 0.7
    """Scores from which on a face is looked at again, and is one."""
    PART, PART_SIDE = 3.0, 160
    """The second look: a square of so many longer sides of the face, and its pixels."""

    def __init__(self, path: Path, made_by: str) -> None:
        self.made_by = self.signature(made_by)
        cv2 = opencv()
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.GUESS, 0.3, 5000)
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise _unusable(path, "a YuNet face detector") from error

    @classmethod
    def signature(cls, made_by: str) -> str:
        """`made_by` of the detector of a file with this name, commit and licence."""
        return f"{made_by}, sides {'+'.join(map(str, cls.SIDES))}/{cls.CLOSER}/{cls.PART_SIDE}"

    def find(self, image: np.ndarray) -> list[Face]:
        """All faces, the largest first."""
        longest = max(image.shape[:2])
        found = [face for side in self.SIDES for face in self._look_at_all(image, side)]
        if max((face.side for face in found), default=0) * max(self.SIDES) < self.ENOUGH * longest:
            found += self._look_at_all(image, self.CLOSER)
        return sorted(_different(found), key=lambda face: (-face.area, face.box))

    def _look_at_all(self, image: np.ndarray, side: int) -> list[Face]:
        """The faces in the picture with its longest side at so many pixels; the unclear ones looked at again."""
        cv2 = opencv()
        height, width = image.shape[:2]
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shown = image
        if size != (width, height):
            shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        guesses = self._look(shown, np.array([width / size[0], height / size[1]]), np.zeros(2))
        looks = [guess if guess.side * scale >= self.CLEAR else self._look_again(image, guess) for guess in guesses]
        return [face for face in looks if face and face.score >= self.MIN_SCORE]

    def _look_again(self, image: np.ndarray, guess: Face) -> Face | None:
        """A guess, alone and enlarged."""
        x, y, width, height = guess.box
        side = self.PART * max(width, height)
        corner = np.array([x + width / 2, y + height / 2]) - side / 2
        shown = square(image, corner, side, self.PART_SIDE)
        there = self._look(shown, np.full(2, side / self.PART_SIDE), corner)
        return max((face for face in there if _same(face, guess)), key=lambda face: face.score, default=None)

    def _look(self, shown: np.ndarray, pixel: np.ndarray, corner: np.ndarray) -> list[Face]:
        """What the network finds in what it is shown, in pixels of the picture.

        Args:
            shown: uint8 RGB.
            pixel: width and height of one of its pixels.
            corner: x, y of its upper left corner.
        """
        self._net.setInputSize(shown.shape[1::-1])
        _, rows = self._net.detect(np.ascontiguousarray(shown[..., ::-1]))
        rows = [] if rows is None else [row for row in rows.astype(np.float64) if np.isfinite(row).all()]
        return [_face(row, pixel, corner) for row in rows]


def _face(row: np.ndarray, pixel: np.ndarray, corner: np.ndarray) -> Face:
    """One row of YuNet's answer: box, five landmarks, score."""
    x, y = row[:2] * pixel + corner
    width, height = row[2:4] * pixel
    # YuNet counts from the picture's corner (measured on mirrored pictures), alignment from its first pixel's middle.
    landmarks = row[4:14].reshape(5, 2) * pixel + corner - 0.5
    return Face((float(x), float(y), float(width), float(height)), landmarks.astype(np.float32), float(row[14]))


def _different(faces: list[Face]) -> list[Face]:
    """Of faces that several looks have found, each once: the surest."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return kept


def _same(one: Face, other: Face) -> bool:
    """Whether two boxes are of one face: half of the smaller one lies in the other."""
    (left, top, width, height), (x, y, wide, high) = one.box, other.box
    across = min(left + width, x + wide) - max(left, x)
    down = min(top + height, y + high) - max(top, y)
    return max(0.0, across) * max(0.0, down) > 0.5 * min(one.area, other.area)


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
        cv2 = opencv()
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
            outputs = self._net.getUnconnectedOutLayersNames()
            answer = self._forward(np.full((CROP, CROP, 3), 127, np.uint8))
        except cv2.error as error:
            raise _unusable(path, "a 112-pixel ArcFace network") from error
        if not (len(outputs) == 1 and answer.ndim == 1 and answer.size >= 16 and np.isfinite(answer).all()):
            raise _unusable(path, "a 112-pixel ArcFace network")

    def _forward(self, crop: np.ndarray) -> np.ndarray:
        self._net.setInput(opencv().dnn.blobFromImage(crop, self._scale, (CROP, CROP), (self._mean,) * 3))
        answer: np.ndarray = self._net.forward()
        return answer.astype(np.float32).squeeze()

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(D,)` of length 1."""
        return normalised(self._forward(align(image, face.landmarks)))


def _unusable(path: Path, what: str) -> MagicIDError:
    return MagicIDError(
        "face-model-unusable",
        f"{path.name} is not {what} that OpenCV can run.",
        "If it was downloaded, remove it with `magicid cache` and try again; else choose another with --face-model.",
    )
