"""What a setting that names a file counts as. Truth: two files of the same content, and of other content."""

from pathlib import Path

import pytest

from magicid_cli.config import resolve, subset
from magicid_cli.named_files import by_content
from magicid_cli.stages import prefer


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("one.onnx", "moved.onnx", "other.onnx")]
    for path, content in zip(paths, (b"a", b"a", b"b"), strict=True):
        path.write_bytes(content)
    return paths


def test_a_recogniser_s_file_counts_by_what_is_in_it_where_stage_2_goes_on(files: list[Path]) -> None:
    """The guards judge with it: as in the stage's own key, where it lies is nobody's business."""
    counted = []
    for path in files:
        wanted = resolve({"rewards.face_model": str(path)}).settings
        counted.append(by_content(subset(wanted, prefer.reads(wanted))))
    assert counted[0] == counted[1] != counted[2]
    assert str(files[0]) not in map(str, counted[0].values())


@pytest.mark.parametrize("value", ["", "auto", "sface", "drawn", "/nowhere/face.onnx"])
def test_what_names_no_file_counts_as_it_is(value: str) -> None:
    assert by_content({"rewards.face_model": value, "seed": 7}) == {"rewards.face_model": value, "seed": 7}
