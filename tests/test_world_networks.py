"""The networks of the drawn world, untrained, and their files.

The truths: a network's own answers before it was saved, a peak's place in its map, and where `figure` draws the
landmarks of people who look straight ahead.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from magicid_cli.errors import MagicIDError
from magicid_cli.world import networks
from magicid_cli.world.networks import FaceEncoder, FaceFinder, Found, PromptScorer
from magicid_cli.world.training.judges import LABELS

ANSWERS = [len(names) for names in LABELS.values()]
Network = FaceFinder | FaceEncoder | PromptScorer


def untrained() -> list[tuple[Network, tuple[int, ...]]]:
    """Every network with the shape of what it sees."""
    torch.manual_seed(0)
    return [
        (FaceFinder(), (2, 3, 64, 64)),
        (networks.reward_encoder(), (2, 3, 40, 40)),
        (networks.judging_encoder(), (2, 3, 44, 44)),
        (PromptScorer(ANSWERS), (2, 9, 3, 48, 48)),
    ]


def answers_of(network: Network, shape: tuple[int, ...]) -> list[torch.Tensor]:
    network.eval()
    with torch.no_grad():
        answer = network(torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    if isinstance(answer, Found):
        return [answer.presence, answer.landmarks, answer.box]
    return answer if isinstance(answer, list) else [answer]


# --- the networks ---------------------------------------------------------------------------------------------------


def test_the_networks_are_small() -> None:
    for network, _ in untrained():
        assert 100_000 < sum(value.numel() for value in network.parameters()) < 500_000


def test_answers_have_their_shapes() -> None:
    shapes = [[tuple(part.shape) for part in answers_of(network, shape)] for network, shape in untrained()]
    assert shapes == [[(2,), (2, 5, 2), (2, 4)], [(2, 64)], [(2, 64)], [(2, 7), (2, 8), (2, 8)]]


def test_embeddings_have_length_1() -> None:
    (network, shape) = untrained()[1]
    torch.testing.assert_close(answers_of(network, shape)[0].norm(dim=1), torch.ones(2))


def test_a_map_with_one_peak_has_its_centre_there() -> None:
    maps = torch.full((1, 2, 32, 32), -50.0)
    maps[0, 0, 5, 20] = 50.0
    maps[0, 1, 31, 8] = maps[0, 1, 31, 9] = 50.0
    expected = torch.tensor([[[20.5 / 32, 5.5 / 32], [9 / 32, 31.5 / 32]]])
    torch.testing.assert_close(networks._centres(maps), expected)


def test_the_scorer_sees_motion() -> None:
    """The same frames in another order are another action, but the same place and outfit."""
    network = PromptScorer(ANSWERS).eval()
    clip = torch.rand(1, 9, 3, 48, 48) * 2 - 1
    with torch.no_grad():
        action, *_ = network(clip)
        reversed_action, *_ = network(clip.flip(1))
    assert not torch.allclose(action, reversed_action, atol=1e-4)


def test_the_two_encoders_differ_in_width_and_crop() -> None:
    first, second = networks.reward_encoder(), networks.judging_encoder()
    assert first.sizes.keys() == second.sizes.keys()
    assert all(first.sizes[name] != second.sizes[name] for name in first.sizes)


@pytest.mark.parametrize("encoder", [networks.reward_encoder, networks.judging_encoder])
def test_a_face_from_the_front_falls_on_the_template(encoder: Callable[[], FaceEncoder]) -> None:
    """The truth: where `figure` draws the landmarks of 200 people who look straight ahead."""
    from magicid_cli.world.canvas import Canvas
    from magicid_cli.world.figure import Pose, draw_person
    from magicid_cli.world.outfits import OUTFITS
    from magicid_cli.world.people import person

    network, canvas = encoder(), Canvas(64)
    span, top, side = network.sizes["span"], network.sizes["top"], network.sizes["side"]
    drawn_at = []
    for seed in range(200):
        face = draw_person(canvas, person(seed), OUTFITS["white coat"], Pose(0.5, 0.4, 0.5))
        in_heads = (face.landmarks - (0.5, 0.4)) / 0.5
        drawn_at.append((in_heads - (-span / 2, top)) * side / span - 0.5)
    assert network.template == pytest.approx(np.mean(drawn_at, axis=0), abs=0.5)


# --- files ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_as_float16(tmp_path: Path) -> None:
    for network, shape in untrained():
        network.train()
        network(torch.rand(shape))  # statistics that are not those of a new network
        path = tmp_path / "one.safetensors"
        networks.save(network, path, {"auc": 0.5})
        again, facts = networks.load(type(network), path)
        assert facts == {"auc": 0.5} and not again.training
        assert not any(value.requires_grad for value in again.parameters())
        assert {value.dtype for value in load_file(path).values()} == {torch.float16}
        for before, after in zip(answers_of(network, shape), answers_of(again, shape), strict=True):
            torch.testing.assert_close(before, after, rtol=0.02, atol=0.02)


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    from safetensors import safe_open

    networks.save(networks.judging_encoder(), tmp_path / "one.safetensors", {})
    with safe_open(tmp_path / "one.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["network"] == "FaceEncoder" and "drawn people only" in header["world"]
    assert json.loads(header["sizes"])["side"] == 44


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    network = FaceFinder()
    with torch.no_grad():
        dict(network.named_parameters())["maps.bias"].fill_(1e6)
    with pytest.raises(ValueError, match=r"maps\.bias"):
        networks.save(network, tmp_path / "one.safetensors", {})
    assert not list(tmp_path.iterdir())


def _rewritten(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, header)
    save_file(tensors, path, header)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "text": lambda path: path.write_text("no weights at all"),
    "without a header": lambda path: _rewritten(path, lambda _, header: header.clear()),
    "another network": lambda path: networks.save(FaceFinder(), path, {}),
    "sizes of another": lambda path: _rewritten(path, lambda _, h: h.update(sizes='{"answers": [7, 8, 9]}')),
    "senseless sizes": lambda path: _rewritten(path, lambda _, h: h.update(sizes='{"hats": 3}')),
    "a tensor too few": lambda path: _rewritten(path, lambda tensors, _: tensors.pop("action.bias")),
    "not finite": lambda path: _rewritten(path, lambda tensors, _: tensors["action.bias"].fill_(np.nan)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / networks.SCORER
    networks.save(PromptScorer(ANSWERS), path, {"labels": LABELS})
    DAMAGES[damage](path)
    with pytest.raises(MagicIDError) as caught:
        networks.load(PromptScorer, path)
    assert caught.value.code == "model-unusable" and caught.value.exit_code == 5
    assert networks.SCORER in caught.value.message and str(tmp_path) not in caught.value.message.split(":")[0]
