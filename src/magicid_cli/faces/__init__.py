"""Faces in a picture: where they are, cut out upright at 112 pixels, and as a vector that tells people apart.

Detection is YuNet through OpenCV's `FaceDetectorYN`; recognition is any network of the ArcFace family as an ONNX file
through OpenCV's DNN module. `mini` has networks of its own for the people of its drawn world, and for the `tiny`
model there are stand-ins; neither needs a download.
"""

import hashlib
from functools import partial
from pathlib import Path

from magicid_cli import hub
from magicid_cli.alignment import similarity
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces.base import CROP, TEMPLATE, Detector, Face, Faces, Recogniser, align, normalised
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
    "evaluation_face_model",
    "normalised",
    "open_evaluation_faces",
    "open_faces",
    "require_names",
    "signatures",
    "similarity",
]

# OpenCV's SFace file scales its input itself; a copy of it given by path is recognised by its content.
_SFACE_SHA256 = "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79"


def open_faces(
    rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events, commits: hub.Commits | None = None
) -> Faces:
    """The detector and the recogniser that the settings name, fetched if they are not here yet.

    Args:
        rewards: `auto` stands for what the catalog names for the video model.
        model: the video model.
        offline: use only what is in the cache.
        events: hears of downloads and of the licence of a recogniser asked for by name.
        commits: which commits are used, see `hub.settled`; by default those that the branches mean now.

    Raises:
        MagicIDError: `face-model-missing` for a file that is not there, `face-model-unusable` for one that is no such
            network, `model-unusable` for damaged weights of the package, `settings-unknown` for a name that is no
            recogniser, or what `hub.fetch_file` raises.
    """
    recogniser, by_name = _reward_face_model(rewards, model), rewards.face_model != "auto"
    return Faces(
        _open_detector(rewards, model, offline=offline, events=events, commits=commits),
        _open_recogniser(recogniser, by_name=by_name, offline=offline, events=events, commits=commits),
    )


def open_evaluation_faces(
    rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events, commits: hub.Commits | None = None
) -> Faces:
    """The detector, and the recogniser that judges results: another one than the reward's.

    A model that learned to please one recogniser would be praised by it. `auto` is the one that the catalog names for
    the evaluation, or, where the reward uses that, the one that it names for the reward. A copy of a recogniser's file
    under another name is that recogniser.

    Raises:
        MagicIDError: `settings-invalid` if the evaluation's is asked to be the reward's, or what `open_faces` raises.
    """
    name = evaluation_face_model(rewards, model, offline=offline, events=events, commits=commits)
    by_name = rewards.evaluation_face_model != "auto"
    return Faces(
        _open_detector(rewards, model, offline=offline, events=events, commits=commits),
        _open_recogniser(name, by_name=by_name, offline=offline, events=events, commits=commits),
    )


def evaluation_face_model(
    rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events, commits: hub.Commits | None = None
) -> str:
    """The name or the file of the recogniser that `open_evaluation_faces` would open; it is not opened.

    Raises:
        MagicIDError: as `open_evaluation_faces`.
    """
    used, name = _reward_face_model(rewards, model), rewards.evaluation_face_model
    same = partial(_the_same, used, offline=offline, events=events, commits=commits)
    if name == "auto":
        name = model.face_model if same(model.evaluation_face_model) else model.evaluation_face_model
    if same(name):
        raise MagicIDError(
            "settings-invalid",
            f"'{name}' already judged the training videos, so it cannot judge what came of them.",
            "Leave rewards.evaluation_face_model at auto, or name another recogniser. " + _names_hint(),
        )
    return name


def require_names(rewards: RewardSettings, model: VideoModel) -> None:
    """Refuse at once a recogniser that there is not; nothing is fetched.

    Raises:
        MagicIDError: `face-model-missing`, or `settings-unknown` for a name that is no recogniser.
    """
    name = _reward_face_model(rewards, model)
    if name in FACE_MODELS:
        _recogniser(name)
    elif name not in (*STAND_INS, *DRAWN):
        _own_file(name)


def signatures(
    rewards: RewardSettings, model: VideoModel, commits: hub.Commits | None = None
) -> tuple[str, str] | None:
    """`made_by` of the detector and of the recogniser that `open_faces` would open; nothing is fetched.

    Args:
        rewards: see `open_faces`.
        model: the video model.
        commits: see `open_faces`; opened with the same, the networks are those of the signatures.

    Returns:
        Both, or None if only a fetch would tell, or if the recogniser's file is gone.

    Raises:
        MagicIDError: `model-unusable` for damaged weights of the package.
    """
    finder, recogniser = _detector_name(rewards, model), _reward_face_model(rewards, model)
    nobody = Events()
    one: str | None
    if finder in FACE_MODELS:
        known = _known_signature(FACE_MODELS[finder], commits)
        one = None if known is None else YuNet.signature(known)
    else:
        one = _open_detector(rewards, model, offline=True, events=nobody).made_by
    if recogniser in FACE_MODELS:
        other = _known_signature(FACE_MODELS[recogniser], commits)
    elif recogniser in (*STAND_INS, *DRAWN):
        other = _open_recogniser(recogniser, by_name=False, offline=True, events=nobody).made_by
    else:
        path = Path(recogniser).expanduser()
        other = _file_signature(path, _content(path)) if path.is_file() else None
    return None if one is None or other is None else (one, other)


def _known_signature(model: FaceModel, commits: hub.Commits | None) -> str | None:
    at = {} if commits is None else commits
    hub.settled(model.source, at)
    return _signature(model, at[model.source.repo]) if model.source.repo in at else None


def _reward_face_model(rewards: RewardSettings, model: VideoModel) -> str:
    return rewards.face_model if rewards.face_model != "auto" else model.face_model


def _detector_name(rewards: RewardSettings, model: VideoModel) -> str:
    return rewards.face_detector if rewards.face_detector != "auto" else model.face_detector


def _the_same(one: str, other: str, *, offline: bool, events: Events, commits: hub.Commits | None) -> bool:
    """Whether two recognisers are one, by name or by the content of their files.

    Two names of the catalog are two networks; only where one is a file of the user's own, contents must tell.
    """
    if one == other or (one in FACE_MODELS and other in FACE_MODELS):
        return one == other
    paths = [_file_of(name, offline=offline, events=events, commits=commits) for name in (one, other)]
    contents = [None if path is None else _content(path) for path in paths]
    return contents[0] is not None and contents[0] == contents[1]


def _file_of(name: str, *, offline: bool, events: Events, commits: hub.Commits | None) -> Path | None:
    """The file of a recogniser, fetched if it is not here yet; None for one that is none, or that is not there."""
    if name in (*STAND_INS, *DRAWN):
        return None
    if name in FACE_MODELS:
        return _fetch(FACE_MODELS[name], offline=offline, events=events, commits=commits)[0]
    path = Path(name).expanduser()
    return path if path.is_file() else None


def _open_detector(
    rewards: RewardSettings, model: VideoModel, *, offline: bool, events: Events, commits: hub.Commits | None = None
) -> Detector:
    name = _detector_name(rewards, model)
    if name == STAND_IN:
        return StandInDetector()
    if name in DRAWN:
        from magicid_cli.faces.drawn import DrawnDetector

        return DrawnDetector()
    path, made_by = _fetch(FACE_MODELS[name], offline=offline, events=events, commits=commits)
    return YuNet(path, made_by)


def _open_recogniser(
    name: str, *, by_name: bool, offline: bool, events: Events, commits: hub.Commits | None = None
) -> Recogniser:
    if name in STAND_INS:
        return StandInRecogniser(name)
    if name in DRAWN:
        from magicid_cli.faces.drawn import DrawnRecogniser

        return DrawnRecogniser(name)
    if name not in FACE_MODELS:
        return _open_file(name, events)
    known = _recogniser(name)
    if by_name:
        use = "" if known.source.commercial else " It must not be used commercially."
        events.notice(f"Face recogniser {name}, licence: {known.source.licence}.{use}")
    path, made_by = _fetch(known, offline=offline, events=events, commits=commits)
    return OnnxRecogniser(path, known.kind, name=name, made_by=made_by)


def _recogniser(name: str) -> FaceModel:
    """A recogniser of the catalog."""
    known = FACE_MODELS[name]
    if known.kind == "yunet":
        raise MagicIDError("settings-unknown", f"'{name}' finds faces, it does not recognise them.", _names_hint())
    return known


def _own_file(name: str) -> Path:
    """The file of a recogniser of the user's own."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise MagicIDError(
            "face-model-missing", f"'{name}' is neither the name of a face recogniser nor a file.", _names_hint()
        )
    return path


def _open_file(name: str, events: Events) -> Recogniser:
    """A recogniser of the user's own."""
    path = _own_file(name)
    events.notice(
        f"Face recogniser {path.name} is your own file: whether its licence allows your use is yours to check."
    )
    content = _content(path)
    kind = "sface" if content == _SFACE_SHA256 else "arcface"
    return OnnxRecogniser(path, kind, name=path.name, made_by=_file_signature(path, content))


def _file_signature(path: Path, content: str) -> str:
    return f"{path.name} sha256:{content[:16]} (licence unknown)"


def _signature(model: FaceModel, commit: str) -> str:
    return f"{model.name} {commit} ({model.source.licence})"


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(model: FaceModel, *, offline: bool, events: Events, commits: hub.Commits | None) -> tuple[Path, str]:
    source = model.source if commits is None else hub.settled(model.source, commits)
    fetched = hub.fetch_file(source, model.file, offline=offline, events=events)
    if commits is not None:
        commits[source.repo] = fetched.commit
    return fetched.path, _signature(model, fetched.commit)


def _names_hint() -> str:
    names = ", ".join([*(name for name, model in FACE_MODELS.items() if model.kind != "yunet"), *DRAWN])
    return f"Names: {names}; or give the path of a 112-pixel ArcFace ONNX file to --face-model."
