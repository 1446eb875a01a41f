"""Drawing a person in a pose, and where the face then is."""

import math
from dataclasses import dataclass

import numpy as np

from magicid_cli.world.canvas import Canvas, Point, shade
from magicid_cli.world.outfits import Outfit, draw_pattern
from magicid_cli.world.people import Person


@dataclass(frozen=True)
class Pose:
    """How a person stands in the frame at one moment.

    Attributes:
        x, y: the head's centre, in units of the frame's side.
        size: the head's height, likewise.
        roll: of the head in degrees, clockwise.
        lean: of the body in degrees, clockwise.
        yaw: turn of the head, -1 (to the left of the frame) to 1.
        pitch: nod of the head, -1 (up) to 1 (down).
        arms: (shoulder, elbow) in degrees of the arm on the left and on the right of the frame; 0 hangs down and 180
            points up; the elbow's angle is added to the shoulder's.
        step: of the legs, -1 to 1.
        mouth: `serious`, `smiling` or `surprised`.
    """

    x: float
    y: float
    size: float
    roll: float = 0.0
    lean: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    arms: tuple[tuple[float, float], tuple[float, float]] = ((12.0, 6.0), (12.0, 6.0))
    step: float = 0.0
    mouth: str = "serious"


@dataclass(frozen=True, eq=False)
class FacePlace:
    """Where a face was drawn.

    Attributes:
        landmarks: (5, 2) x, y in units of the frame's side: eye, eye, nose tip, mouth corner, mouth corner, each pair
            from left to right in the frame.
        box: x, y, width, height in the same units.
    """

    landmarks: np.ndarray
    box: tuple[float, float, float, float]


def draw_person(canvas: Canvas, person: Person, outfit: Outfit, pose: Pose) -> FacePlace:
    """Paint `person` over what is on the canvas.

    Returns:
        Where the face is.
    """
    body = _Body(pose)
    head = _Head(pose, person)
    _hair_behind(canvas, person, head)
    _torso(canvas, person, outfit, body)
    for side, (shoulder, elbow) in zip((-1, 1), pose.arms, strict=True):
        _arm(canvas, person, outfit, body, side, shoulder, elbow)
    _face(canvas, person, head, pose)
    _hair_front(canvas, person, head)
    _glasses(canvas, person, head)
    return head.place()


class _Body:
    """From the body's coordinates (origin at the head's centre, unit its height) to the frame."""

    def __init__(self, pose: Pose) -> None:
        self.origin, self.unit = (pose.x, pose.y), pose.size
        self._sin, self._cos = math.sin(math.radians(pose.lean)), math.cos(math.radians(pose.lean))
        self.step = pose.step

    def __call__(self, x: float, y: float) -> Point:
        # It leans about the hips.
        y -= 2.6
        across = x * self._cos - y * self._sin
        down = x * self._sin + y * self._cos + 2.6
        return self.origin[0] + self.unit * across, self.origin[1] + self.unit * down


class _Head:
    """From the face's coordinates to the frame: features slide over a round head when it turns."""

    def __init__(self, pose: Pose, person: Person) -> None:
        body = _Body(pose)
        self.unit, self.person = pose.size, person
        self._neck = body(0, 0.5)
        self._sin, self._cos = math.sin(math.radians(pose.roll)), math.cos(math.radians(pose.roll))
        self.roll = pose.roll
        self.yaw = math.radians(55) * pose.yaw
        self.pitch = pose.pitch
        self.radius = person.width / 2  # a rounder head than the drawn one would carry the features past its outline

    def rigid(self, x: float, y: float) -> Point:
        """A point of the head's outline, which does not slide."""
        y -= 0.5
        across, down = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        return self._neck[0] + self.unit * across, self._neck[1] + self.unit * down

    def on_face(self, x: float, y: float, depth: float = 0.0) -> Point:
        """A point of the face's surface; `depth` is how far it stands out."""
        angle = math.asin(max(-0.98, min(0.98, x / self.radius))) + self.yaw
        slid = (self.radius + depth) * math.sin(angle)
        return self.rigid(slid, y + self.pitch * (0.15 + 0.6 * depth))

    def narrowing(self, x: float) -> float:
        """How much narrower a feature at `x` looks."""
        return max(0.12, math.cos(math.asin(max(-0.98, min(0.98, x / self.radius))) + self.yaw))

    def outline(self) -> list[Point]:
        """The face's outline: round above, towards the jaw as the person's is."""
        half, jaw = self.person.width / 2, self.person.jaw
        points = []
        for degrees in range(0, 360, 12):
            angle = math.radians(degrees)
            x, y = math.cos(angle), math.sin(angle)
            power = 1.0 - 0.42 * jaw if y > 0 else 1.0
            across = math.copysign(abs(x) ** power, x) * half * (1 - (0.2 - 0.2 * jaw) * max(0.0, y) ** 2)
            points.append(self.rigid(across + 0.05 * math.sin(self.yaw), 0.5 * y))
        return points

    def place(self) -> FacePlace:
        """Where eyes, nose, mouth and the whole face are."""
        person = self.person
        eye, mouth = person.eye_gap, person.mouth * 0.8
        points = [
            self.on_face(-eye, -0.02),
            self.on_face(eye, -0.02),
            self.on_face(0, -0.02 + person.nose, 0.08),
            self.on_face(-mouth, 0.27),
            self.on_face(mouth, 0.27),
        ]
        x, y = self.rigid(0, 0)
        width, height = person.width * self.unit, self.unit
        return FacePlace(np.array(points), (x - width / 2, y - height / 2, width, height))


def _torso(canvas: Canvas, person: Person, outfit: Outfit, body: _Body) -> None:
    wide = person.build / 2
    for side in (-1, 1):
        foot = side * (0.3 + 0.5 * side * body.step)
        canvas.polygon(
            [body(side * 0.04, 2.5), body(side * wide * 0.72, 2.5), body(foot + 0.18, 4.4), body(foot - 0.18, 4.4)],
            (52, 54, 74),
        )
    canvas.polygon([body(-0.17, 0.2), body(0.17, 0.2), body(0.2, 0.75), body(-0.2, 0.75)], shade(person.skin, 0.82))
    hips = wide * 0.78
    outline = [(-0.24, 0.6), (0.24, 0.6), (wide * 0.8, 0.72), (wide, 0.95), (hips, 2.65), (-hips, 2.65), (-wide, 0.95)]
    canvas.polygon([body(x, y) for x, y in [*outline, (-wide * 0.8, 0.72)]], outfit.main)
    draw_pattern(canvas, outfit, body, body.unit, wide)


def _arm(canvas: Canvas, person: Person, outfit: Outfit, body: _Body, side: int, shoulder: float, elbow: float) -> None:
    unit = body.unit
    x, y = side * (person.build / 2 - 0.1), 0.92
    points = [(x, y)]
    for angle, length in ((shoulder, 0.78), (shoulder + elbow, 0.72)):
        x += side * length * math.sin(math.radians(angle))
        y += length * math.cos(math.radians(angle))
        points.append((x, y))
    inner, middle, hand = (body(*point) for point in points)
    dark = shade(outfit.main, 0.8)
    canvas.stroke([inner, middle, hand], dark, 0.34 * unit)
    canvas.stroke([inner, middle, hand], shade(outfit.main, 0.92), 0.27 * unit)
    canvas.ellipse(hand, (0.17 * unit, 0.17 * unit), person.skin)


def _face(canvas: Canvas, person: Person, head: _Head, pose: Pose) -> None:
    unit = head.unit
    for side in (-1, 1):
        if abs(side * math.degrees(head.yaw)) < 25 or side * head.yaw < 0:
            ear = head.rigid(side * person.width / 2 - 0.06 * math.sin(head.yaw), 0.03)
            canvas.ellipse(ear, (0.07 * unit, 0.11 * unit), shade(person.skin, 0.88))
    canvas.polygon(head.outline(), person.skin)
    _beard(canvas, person, head)
    _mouth(canvas, person, head, pose.mouth)
    tip = head.on_face(0, -0.02 + person.nose, 0.08)
    half = person.nose_width * unit
    bridge = head.on_face(0, -0.06, 0.02)
    canvas.polygon([bridge, (tip[0] + half, tip[1]), (tip[0] - half, tip[1])], shade(person.skin, 0.8))
    canvas.ellipse(tip, (half, 0.03 * unit), shade(person.skin, 0.74))
    for side in (-1, 1):
        _eye(canvas, person, head, side)


def _eye(canvas: Canvas, person: Person, head: _Head, side: int) -> None:
    unit, x = head.unit, side * person.eye_gap
    half = person.eye_size * head.narrowing(x) * unit
    centre = head.on_face(x, -0.02)
    canvas.ellipse(centre, (half, 0.052 * unit), (250, 250, 250), tilt=head.roll)
    looking = (centre[0] + 0.025 * unit * math.sin(head.yaw), centre[1] + 0.01 * unit * head.pitch)
    canvas.ellipse(looking, (min(half, 0.045 * unit), 0.046 * unit), person.iris)
    canvas.ellipse(looking, (min(half, 0.022 * unit), 0.024 * unit), (10, 10, 12))
    colour = shade(person.hair, 0.75) if person.style != "bald" else (70, 54, 44)
    slope = person.brow_tilt * side
    ends = [head.on_face(x + end, -0.15 - slope * end) for end in (-0.09, 0.09)]
    canvas.stroke(ends, colour, person.brow * unit)


def _mouth(canvas: Canvas, person: Person, head: _Head, mouth: str) -> None:
    unit = head.unit
    half = person.mouth * head.narrowing(0)
    middle = head.on_face(0, 0.27, 0.03)
    if mouth == "surprised":
        canvas.ellipse(middle, (0.55 * half * unit, 0.085 * unit), person.lips)
        canvas.ellipse(middle, (0.36 * half * unit, 0.055 * unit), (70, 16, 24))
        return
    left, right = head.on_face(-person.mouth, 0.27), head.on_face(person.mouth, 0.27)
    if mouth == "smiling":
        rise = 0.055 * unit
        low = (middle[0], middle[1] + 0.075 * unit)
        left, right = (left[0], left[1] - rise), (right[0], right[1] - rise)
        canvas.polygon([left, (middle[0], middle[1] - 0.015 * unit), right, low], (252, 250, 246))
        canvas.stroke([left, _halfway(left, low), low, _halfway(right, low), right], person.lips, 0.035 * unit)
        return
    canvas.stroke([left, middle, right], person.lips, 0.05 * unit)


def _halfway(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 0.2 * abs(a[1] - b[1])


def _beard(canvas: Canvas, person: Person, head: _Head) -> None:
    if person.beard == "none":
        return
    colour = shade(person.hair, 0.9) if person.style != "bald" else (92, 74, 60)
    unit = head.unit
    if person.beard == "full":
        half = person.width / 2
        rim = [(-half, 0.05), (-half * 0.98, 0.2), (-half * 0.78, 0.42), (0, 0.6)]
        rim += [(half * 0.78, 0.42), (half * 0.98, 0.2)]
        inner = [(half, 0.05), (half * 0.62, 0.16), (0, 0.19), (-half * 0.62, 0.16)]
        canvas.polygon([head.rigid(x + 0.04 * math.sin(head.yaw), y) for x, y in [*rim, *inner]], colour)
    if person.beard == "goatee":
        canvas.ellipse(head.on_face(0, 0.43), (0.12 * unit, 0.1 * unit), colour)
    if person.beard in {"moustache", "goatee"}:
        curve = [head.on_face(-0.13, 0.22), head.on_face(0, 0.19, 0.04), head.on_face(0.13, 0.22)]
        canvas.stroke(curve, colour, 0.07 * unit)


def _hair_behind(canvas: Canvas, person: Person, head: _Head) -> None:
    half, dark, unit = person.width / 2, shade(person.hair, 0.82), head.unit
    if person.style in {"long", "bob"}:
        low = 0.95 if person.style == "long" else 0.42
        shape = [(-half - 0.1, -0.1), (0, -0.62), (half + 0.1, -0.1), (half + 0.14, low), (-half - 0.14, low)]
        canvas.polygon([head.rigid(x, y) for x, y in shape], dark)
    elif person.style == "bun":
        canvas.ellipse(head.rigid(-0.06 * math.sin(head.yaw), -0.62), (0.19 * unit, 0.17 * unit), dark)
    elif person.style == "curly":
        for degrees in range(150, 395, 24):
            angle = math.radians(degrees)
            spot = head.rigid((half + 0.04) * math.cos(angle), 0.46 * math.sin(angle) - 0.04)
            canvas.ellipse(spot, (0.17 * unit, 0.17 * unit), dark)


def _hair_front(canvas: Canvas, person: Person, head: _Head) -> None:
    style, half, slide = person.style, person.width / 2, 0.09 * math.sin(head.yaw)
    if style == "bald":
        return
    nod = 0.06 * head.pitch
    if style == "spiky":
        tips = [(-half - 0.03, -0.1), (-half - 0.06, -0.5), (-half * 0.55, -0.46), (-half * 0.35, -0.68), (0, -0.5)]
        tips += [(half * 0.3, -0.7), (half * 0.55, -0.47), (half + 0.04, -0.52), (half + 0.03, -0.1)]
    else:
        tips = [(-half - 0.03, 0.0), (-half - 0.02, -0.28), (-half * 0.62, -0.52), (0, -0.58), (half * 0.62, -0.52)]
        tips += [(half + 0.02, -0.28), (half + 0.03, 0.0)]
    fringe = {"bob": -0.2, "long": -0.26, "curly": -0.24}.get(style, -0.3) + nod
    rim = [(half * 0.86, -0.06), (half * 0.7 + slide, fringe), (slide, fringe - 0.05), (-half * 0.7 + slide, fringe)]
    rim.append((-half * 0.86, -0.06))
    canvas.polygon([head.rigid(x, y) for x, y in tips + rim], person.hair)


def _glasses(canvas: Canvas, person: Person, head: _Head) -> None:
    if person.glasses == "none":
        return
    unit, thick = head.unit, 0.032 * head.unit
    for side in (-1, 1):
        x = side * max(person.eye_gap, 0.15)
        centre, half = head.on_face(x, -0.01, 0.02), 0.13 * head.narrowing(x)
        if person.glasses == "round":
            canvas.arc(centre, (half * unit, 0.125 * unit), (0, 360), person.frames, thick)
        else:
            corners = [(-half, -0.09), (half, -0.09), (half, 0.1), (-half, 0.1), (-half, -0.09)]
            canvas.stroke([(centre[0] + u * unit, centre[1] + v * unit) for u, v in corners], person.frames, thick)
    canvas.stroke([head.on_face(-0.05, -0.03, 0.03), head.on_face(0.05, -0.03, 0.03)], person.frames, thick)
