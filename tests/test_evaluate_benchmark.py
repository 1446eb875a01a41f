"""The benchmark of `magicid evaluate`, whole but small: a tiny clip and thin networks. Truth: every metric's part looks
at the video once, and the second row only reads.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import _evaluation_networks, evaluate
from benchmarks import score as scoring

import tiny_clip
from magicid_cli.evaluation import likeness, pictures


def test_one_video_is_measured_by_every_metric_and_then_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FRAMES": 17, "WIDTH": 96, "HEIGHT": 160}.items():
        monkeypatch.setattr(scoring, name, value)
    monkeypatch.setattr(_evaluation_networks, "_STAGES", [(8, 1)] * 4)
    monkeypatch.setattr(_evaluation_networks, "write_clip", tiny_clip.build)
    # What the benchmark puts there itself is taken away again with the test.
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "home"))
    for name in ("open_faces", "open_evaluation_faces", "evaluation_face_model", "signatures"):
        monkeypatch.setattr(likeness, name, getattr(likeness, name))
    monkeypatch.setattr(pictures, "open_clip", pictures.open_clip)
    looks: list[str | None] = []
    real = pictures.Pictures.look

    def look(self: pictures.Pictures, clip: Any, prompt: str | None) -> dict[str, Any]:
        looks.append(prompt)
        return real(self, clip, prompt)

    monkeypatch.setattr(pictures.Pictures, "look", look)
    evaluate.main(["--videos", "1", "--output", str(tmp_path / "evaluate.json")])
    found = json.loads((tmp_path / "evaluate.json").read_text())
    first, again = found["rows"]
    assert (first["case"], again["case"]) == ("first time", "once more")
    assert first["videos"] == 1 and first["extrapolated"] and first["seconds_of_40"] >= 39 * first["seconds"]
    assert first["cpu_s"] > 0 and first["peak_gb"] > 0 and first["face_found"] == again["face_found"] is not None
    assert looks == ["prompt 0"], "the second time nothing is looked at"
    assert found["machine"]["transformers"] and found["machine"]["finder"]
