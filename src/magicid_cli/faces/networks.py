"""Face networks that OpenCV runs: the YuNet detector, and recognisers of the ArcFace family as ONNX files."""

from pathlib import Path

import numpy as np

from magicid_cli.alignment import opencv
from magicid_cli.errors import MagicIDError
from magicid_cli.faces.base import CROP, Face, align, normalised

# One photo of a person against the mean of the person's other photos: cosines below this are somebody else. The
# pair threshold published for SFace is 0.363; against a mean of good photos a profile of the same person falls below
# it, so the bar is lower. Networks trained with the ArcFace loss spread strangers closer around 0.
_SAME_PERSON = {"sface": 0.25, "arcface": 0.2}


class YuNet:
    """The YuNet face detector.

    Args:
        path: the ONNX file.
        made_by: name, commit and licence.

    Raises:
        MagicIDError: `face-model-unusable`.
    """

    name = "yunet"
    advice = "Use one with the face in view, lit and not tiny."
    SIDE = 640
    LARGE_SIDE = 1280
    SMALL_SIDE = 320
    MIN_SCORE = 0.7

    def __init__(self, path: Path, made_by: str) -> None:
        self.made_by = made_by
        cv2 = opencv()
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
        cv2 = opencv()
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
