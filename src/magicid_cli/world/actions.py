"""What a drawn person does: an action is a pose for every moment of a clip."""

import math
from collections.abc import Callable

import numpy as np

from magicid_cli.world.figure import Pose

Draw = np.random.Generator
Track = Callable[[float], Pose]
"""From the time in seconds to the pose."""
Action = Callable[[Draw, str, float], Track]
"""From random numbers, the mouth and the clip's length in seconds to a track."""

_REST = (12.0, 6.0)


def still(draw: Draw, mouth: str, seconds: float) -> Track:
    """Stands and looks."""
    x, y, size = _stand(draw)
    yaw, roll = draw.uniform(-0.25, 0.25), draw.uniform(-4, 4)
    return lambda time: Pose(x, y, size, roll=roll, yaw=yaw, mouth=mouth)


def turn(draw: Draw, mouth: str, seconds: float) -> Track:
    """Turns the head from one side to the other."""
    x, y, size = _stand(draw)
    swing, reach = _swing(draw, 0.3, 0.45), draw.uniform(0.75, 1.0)
    return lambda time: Pose(x + 0.015 * swing(time), y, size, yaw=reach * swing(time), mouth=mouth)


def nod(draw: Draw, mouth: str, seconds: float) -> Track:
    """Nods."""
    x, y, size = _stand(draw)
    swing, reach = _swing(draw, 0.4, 0.6), draw.uniform(0.75, 1.0)
    return lambda time: Pose(x, y + 0.03 * swing(time), size, pitch=reach * swing(time), mouth=mouth)


def walk(draw: Draw, mouth: str, seconds: float) -> Track:
    """Walks across the picture."""
    _, y, size = _stand(draw, 0.26, 0.34)
    way = 1.0 if draw.random() < 0.5 else -1.0
    reach, steps, phase = draw.uniform(0.1, 0.16), draw.uniform(0.5, 0.7), draw.uniform(0, 2 * math.pi)

    def pose(time: float) -> Pose:
        swing = math.sin(2 * math.pi * steps * time + phase)
        arms = ((12 + 22 * swing, 14.0), (12 - 22 * swing, 14.0))
        x = 0.5 + way * reach * (2 * time / seconds - 1)
        return Pose(x, y + 0.012 * abs(swing), size, yaw=0.4 * way, lean=2 * way, arms=arms, step=swing, mouth=mouth)

    return pose


def wave(draw: Draw, mouth: str, seconds: float) -> Track:
    """Waves with one hand."""
    x, y, size = _stand(draw, 0.3, 0.38)
    left, swing = draw.random() < 0.5, _swing(draw, 0.5, 0.75)
    x = x + (0.1 if left else -0.1)

    def pose(time: float) -> Pose:
        raised = (150.0, 10 + 28 * swing(time))
        arms = (raised, _REST) if left else (_REST, raised)
        return Pose(x, y, size, roll=2 * swing(time), arms=arms, mouth=mouth)

    return pose


def dance(draw: Draw, mouth: str, seconds: float) -> Track:
    """Dances: the body sways and bobs, the arms go up in turn."""
    x, y, size = _stand(draw, 0.26, 0.34)
    swing, reach = _swing(draw, 0.35, 0.5), draw.uniform(0.04, 0.06)

    def pose(time: float) -> Pose:
        now = swing(time)
        arms = ((85 + 45 * now, 40.0), (85 - 45 * now, 40.0))
        x_now, y_now = x + reach * now, y + 0.03 * abs(now)
        return Pose(x_now, y_now, size, roll=12 * now, lean=9 * now, arms=arms, step=0.5 * now, mouth=mouth)

    return pose


def approach(draw: Draw, mouth: str, seconds: float) -> Track:
    """Comes closer."""
    x, y, _ = _stand(draw)
    first, last = draw.uniform(0.28, 0.31), draw.uniform(0.38, 0.43)
    steps = draw.uniform(0.5, 0.8)

    def pose(time: float) -> Pose:
        share = time / seconds
        size = first + (last - first) * share
        swing = math.sin(2 * math.pi * steps * time)
        arms = ((12 + 14 * swing, 8.0), (12 - 14 * swing, 8.0))
        return Pose(x + 0.008 * swing, y - 0.1 + 0.12 * share, size, arms=arms, step=0.4 * swing, mouth=mouth)

    return pose


ACTIONS: dict[str, Action] = {
    "still": still,
    "turn": turn,
    "nod": nod,
    "walk": walk,
    "wave": wave,
    "dance": dance,
    "approach": approach,
}


def _stand(draw: Draw, smallest: float = 0.34, largest: float = 0.44) -> tuple[float, float, float]:
    """Where the head is and how large: the smaller the person, the more of them is seen."""
    size = draw.uniform(smallest, largest)
    return draw.uniform(0.42, 0.58), 0.1 + 0.62 * size + draw.uniform(-0.02, 0.04), size


def _swing(draw: Draw, slowest: float, fastest: float) -> Callable[[float], float]:
    """A sine with its own speed (per second) and phase."""
    rate, phase = draw.uniform(slowest, fastest), draw.uniform(0, 2 * math.pi)
    return lambda time: math.sin(2 * math.pi * rate * time + phase)
