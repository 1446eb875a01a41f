"""Faces in a picture: where they are, cut out upright at 112 pixels, and as a vector that tells people apart.

Detection is YuNet through OpenCV's `FaceDetectorYN`; recognition is any network of the ArcFace family as an ONNX file
through OpenCV's DNN module. `mini` has networks of its own for the people of its drawn world, and for the `tiny`
model there are stand-ins; neither needs a download.
"""

import hashlib
from pathlib import Path

from magicid_cli import hub
from magicid_cli.alignment import similarity
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces.base import CROP, TEMPLATE, Detector, Face, Faces, Recogniser, align, normalised, sharpness
from magicid_cli.faces.networks import OnnxRecogniser, YuNet
from magicid_cli.faces.standin import STAND_IN, StandInDetector, StandInRecogniser
from magicid_cli.models.catalog import DRAWN, FACE_MODELS, STAND_INS, FaceModel, VideoModel

__all__ = [
    "CROP",
    "STAND_IN",
    "TEMPLATE",
    "Detector",
    "Face",
    "Faces",
    "OnnxRecogniser",
    "Recogniser",
    "StandInDetector",
    "StandInRecogniser",
    "YuNet",
    "align",
    "normalised",
    "open_evaluation_faces",
    "open_faces",
    "sharpness",
    "similarity",
]

# OpenCV's SFace file scales its input itself; a copy of it given by path is recognised by its content.
_SFACE_SHA256 = "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79"


def open_faces(rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events) -> Faces:
    """The detector and the recogniser that the settings name, fetched if they are not here yet.

    Args:
        rewards: `auto` stands for what the catalog names for the video model.
        model: the video model.
        offline: use only what is in the cache.
        events: hears of downloads and of the licence of a recogniser asked for by name.

    Raises:
        MagicIDError: `face-model-missing` for a file that is not there, `face-model-unusable` for one that is no such
            network, `model-unusable` for damaged weights of the package, `settings-unknown` for a name that is no
            recogniser, or what `hub.fetch_file` raises.
    """
    recogniser, by_name = _reward_face_model(rewards, model), rewards.face_model != "auto"
    return Faces(
        _open_detector(rewards, model, offline=offline, events=events),
        _open_recogniser(recogniser, by_name=by_name, offline=offline, events=events),
    )


def open_evaluation_faces(rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events) -> Faces:
    """The detector, and the recogniser that judges results: another one than the reward's.

    A model that learned to please one recogniser would be praised by it. `auto` is the one that the catalog names for
    the evaluation, or, where the reward uses that, the one that it names for the reward.

    Raises:
        MagicIDError: `settings-invalid` if the evaluation's is asked to be the reward's, or what `open_faces` raises.
    """
    used, name = _reward_face_model(rewards, model), rewards.evaluation_face_model
    if name == "auto":
        name = model.evaluation_face_model if used != model.evaluation_face_model else model.face_model
    if _the_same(name, used):
        raise MagicIDError(
            "settings-invalid",
            f"'{name}' already judged the training videos, so it cannot judge what came of them.",
            "Leave rewards.evaluation_face_model at auto, or name another recogniser. " + _names_hint(),
        )
    by_name = rewards.evaluation_face_model != "auto"
    return Faces(
        _open_detector(rewards, model, offline=offline, events=events),
        _open_recogniser(name, by_name=by_name, offline=offline, events=events),
    )


def _reward_face_model(rewards: RewardSettings, model: VideoModel) -> str:
    return rewards.face_model if rewards.face_model != "auto" else model.face_model


def _the_same(one: str, other: str) -> bool:
    """Whether two recognisers are one, by name or as files of the same content."""
    paths = [Path(name).expanduser() for name in (one, other)]
    return one == other or (all(path.is_file() for path in paths) and _content(paths[0]) == _content(paths[1]))


def _open_detector(rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events) -> Detector:
    name = rewards.face_detector if rewards.face_detector != "auto" else model.face_detector
    if name == STAND_IN:
        return StandInDetector()
    if name in DRAWN:
        from magicid_cli.faces.drawn import DrawnDetector

        return DrawnDetector()
    path, made_by = _fetch(FACE_MODELS[name], offline=offline, events=events)
    return YuNet(path, made_by)


def _open_recogniser(name: str, *, by_name: bool, offline: bool, events: Events) -> Recogniser:
    if name in STAND_INS:
        return StandInRecogniser(name)
    if name in DRAWN:
        from magicid_cli.faces.drawn import DrawnRecogniser

        return DrawnRecogniser(name)
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
    content = _content(path)
    made_by = f"{path.name} sha256:{content[:16]} (licence unknown)"
    kind = "sface" if content == _SFACE_SHA256 else "arcface"
    return OnnxRecogniser(path, kind, name=path.name, made_by=made_by)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(model: FaceModel, *, offline: bool, events: Events) -> tuple[Path, str]:
    fetched = hub.fetch_file(model.source, model.file, offline=offline, events=events)
    return fetched.path, f"{model.name} {fetched.commit} ({model.source.licence})"


def _names_hint() -> str:
    names = ", ".join([*(name for name, model in FACE_MODELS.items() if model.kind != "yunet"), *DRAWN])
    return f"Names: {names}; or give the path of a 112-pixel ArcFace ONNX file to --face-model."
