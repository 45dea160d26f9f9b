"""The path language: a walk written as a sentence, and `plan`, which turns a sentence, a preset or a file into cameras.

    sentence  := command { separator command }            separator := "," | ";" | new line | "then"
    command   := motion [ "in" NUMBER "frames" ]
    motion    := "forward" DISTANCE | "back" DISTANCE
               | ( "left" | "right" | "up" | "down" ) ( DISTANCE | ANGLE )      distance: step aside; angle: turn
               | [ "turn" | "look" ] ( "left" | "right" | "up" | "down" ) ANGLE
               | "look" "ahead" | "look" "at" "start"
               | "roll" ( "left" | "right" ) ANGLE
               | "orbit" ( "left" | "right" | "up" | "down" ) ANGLE [ "around" DISTANCE ]
               | "zoom" ( "in" | "out" ) NUMBER
               | "back" "to" "start"
               | "wait" NUMBER [ "frames" ]
               | "speed" ( DISTANCE | ANGLE )                                   a frame, from here on
    ANGLE     := NUMBER ( "deg" | "degrees" )             DISTANCE := NUMBER [ "m" ]

One steps like a person: forward, left and right follow the heading and stay level while the gaze is tilted, up and
down are along the vertical of the walk's first camera, whose own view counts as level. "zoom in 0.5" goes along the
gaze by half the reference depth. "orbit left" goes to the left around the point in the gaze at `around` (default: the
reference depth) and keeps it in view. "look at start" turns to the place where the walk began, or, standing there,
to its first view; "back to start" goes straight to the walk's first camera and ends on it exactly. Presets go level
too, but for those along the gaze. Every command starts and stops smoothly; speeds are its mean: 0.03 units and 1.2
degrees a frame unless said otherwise.

It knows nothing of the scene: `scene.collision` shortens what would run into it.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from photowalk.geometry import motions, path_files, paths
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import PathError

SPEED = 0.03  # units a frame
TURN_SPEED_DEG = 1.2  # degrees a frame
MAX_FRAMES = 100_000  # an hour and a half at 16 frames a second; more is a slip of the pen
_HURRY = 0.1  # a motion is sped up by at most this share rather than given one more chunk

_DIRECTIONS = ("left", "right", "up", "down")
_VERBS = ("forward", "back", *_DIRECTIONS, "turn", "look", "roll", "orbit", "zoom", "wait", "speed")
_SYNONYMS = {"forwards": "forward", "backward": "back", "backwards": "back", "pause": "wait"}
_TOKEN = re.compile(r"[,;\n]|[^\s,;]+")
_KINDS = {"m": "m", "frame": "frames", "frames": "frames"} | dict.fromkeys(
    ("deg", "degree", "degrees", "\u00b0"), "angle"
)
_LENGTH = ("", "m")  # kinds of numbers that are lengths; without a unit they are metres too
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(deg|degrees|degree|\u00b0|m|frames|frame)?$")


@dataclass(frozen=True)
class Command:
    """One parsed motion; amounts are positive, angles in degrees."""

    verb: str  # move, turn, roll, orbit, zoom, look, return, wait, speed
    direction: str = ""
    amount: float = 0.0
    angle: bool = False
    around: float | None = None
    frames: float | None = None


@dataclass(frozen=True)
class Step:
    """Motion between two states (x, y, z, yaw, pitch, roll) [6] in the frame of the walk's first camera."""

    frames: float
    first: Tensor
    last: Tensor
    settled: Tensor  # where it ends: `last` with angles without whole turns, and where an orbit has got to
    around: float | None = None  # distance of the point an orbit keeps in view, so that angles decide its positions

    def states(self, share: Tensor) -> Tensor:
        """share [F] in [0, 1] -> [F, 6]."""
        eased = paths.ease(share)[:, None]
        states = self.first + eased * (self.last - self.first)
        if self.around is not None:
            states = _swung(self.first, states, self.around)
        return torch.where(share[:, None] >= 1, self.settled, states)


@dataclass(frozen=True)
class Plan:
    """Where the camera goes: cameras [1 + k * chunk], the first is where it stands; and what was decided, in words."""

    cameras: Cameras
    notes: list[str]


def plan(
    path: str | Path,
    start: Cameras,
    *,
    start_of_walk: Cameras,
    reference_depth: float,
    frames: int | None = None,
    chunk: int = 80,
    min_frames: int | None = None,
    unit: float = 1.0,
    scale: float = 1.0,
    up: Tensor | None = None,
) -> Plan:
    """The cameras [1 + k * chunk] of `path`, a preset's name, a file or a sentence, from the camera `start` [].

    `frames` asks for a length, `min_frames` for a least one; both are rounded up to whole chunks, over which the
    motion is spread evenly. `reference_depth` (world units) scales presets, zoom and orbits; `unit` is the length of a
    distance "1" of a sentence in world units (1 where depth is metric, else the reference depth); `scale` multiplies
    the distances of a path file; `up` [3] is the vertical in world axes where the walk's first camera was held askew.
    A preset takes two chunks unless told otherwise. Raises PathError with what was found and what is known.
    """
    start.check("the camera to start from")
    start_of_walk.check("the walk's first camera")
    if not (math.isfinite(reference_depth) and reference_depth > 0):
        raise PathError(f"the reference depth must be a positive number, got {reference_depth}")
    lengths = _Lengths(frames, chunk, min_frames)
    text = str(path).strip()
    name = text.lower().replace("-", "_").replace(" ", "_")
    if name in paths.PRESETS:
        count, notes = lengths.round(2 * chunk, "the preset")
        return Plan(_preset(name, start, start_of_walk, up, count, reference_depth), notes)
    if path_files.is_path_file(text):
        return _plan_file(Path(text), start, lengths, scale)
    if re.fullmatch(r"[A-Za-z_-]+", text) and text.lower() not in (*_VERBS, *_SYNONYMS):
        known = list(paths.PRESETS)
        close = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise PathError(
            f"'{text}' is neither a preset{hint} nor a file nor a sentence; presets: {_listed(known)}; "
            f"a sentence is like 'forward 2, left 60deg, back to start'"
        )
    return _plan_sentence(text, start, start_of_walk, reference_depth, unit, up, lengths)


def parse(sentence: str) -> list[Command]:
    """The commands of a sentence; PathError names the word that is not understood, its place and what is known."""
    commands = []
    words: list[tuple[str, int]] = []
    for match in [*_TOKEN.finditer(sentence), None]:
        if match is None or match.group() in ",;\n" or match.group().lower() == "then":
            if words:
                commands.append(_Reader(words, sentence).command())
            words = []
        else:
            words.append((match.group().lower(), match.start() + 1))
    if not commands:
        raise PathError(
            f"the path is empty; give a preset ({_listed(paths.PRESETS)}), a path file, or a sentence such as "
            f"'forward 2, left 60deg, back to start'"
        )
    return commands


def trace(
    commands: list[Command], state: Tensor, reference_depth: float, unit: float, home: Tensor | None = None
) -> list[Step]:
    """The steps of `commands` from a state [6]; distances become world units here. `home` [6] is the walk's first
    camera, at the origin; not given, it counts as level."""
    home = torch.zeros_like(state) if home is None else home
    steps, speed, turn_speed = [], SPEED * unit, math.radians(TURN_SPEED_DEG)
    for command in commands:
        if command.verb == "speed":
            speed = speed if command.angle else command.amount * unit
            turn_speed = math.radians(command.amount) if command.angle else turn_speed
            continue
        around = None
        if command.verb == "orbit":
            around = reference_depth if command.around is None else command.around * unit
        last, settled = _target(command, state, home, reference_depth, unit)
        settled = settled if around is None else _swung(state, last, around)
        step = Step(0.0, state, last, settled, around)
        steps.append(replace(step, frames=_natural_frames(command, step, speed, turn_speed)))
        state = settled
    if not steps:
        raise PathError("the path only sets a speed; add a motion such as 'forward 1'")
    return steps


def _preset(
    name: str, start: Cameras, start_of_walk: Cameras, up: Tensor | None, frames: int, reference_depth: float
) -> Cameras:
    level = start_of_walk if up is None else levelled(start_of_walk, up)
    state = _state(start, level)
    if name in paths.ALONG_GAZE or float(state[4:].abs().max()) < 1e-6:
        return paths.PRESETS[name](start, frames, reference_depth)
    heading = motions.motion(motions.rotation_from_euler(state[3], *torch.zeros_like(state[4:])), state[:3])
    upright = replace(level, camera_from_world=motions.inverse(heading) @ level.camera_from_world.double().cpu())
    return paths.tilted(paths.PRESETS[name](upright, frames, reference_depth), start)


def _plan_sentence(
    text: str,
    start: Cameras,
    start_of_walk: Cameras,
    reference_depth: float,
    unit: float,
    up: Tensor | None,
    lengths: _Lengths,
) -> Plan:
    level = start_of_walk if up is None else levelled(start_of_walk, up)
    home = None if up is None else _state(start_of_walk, level)
    steps = trace(parse(text), _state(start, level), reference_depth, unit, home)
    natural = sum(step.frames for step in steps)
    if natural > MAX_FRAMES:
        raise PathError(
            f"'{text}' would take {natural:.0f} frames, more than {MAX_FRAMES}; shorten it or raise its 'speed'"
        )
    count, notes = lengths.round(natural, f"a motion of {natural:.0f} frames")
    if natural < 0.5 and all(torch.allclose(step.first, step.last, rtol=0, atol=1e-6) for step in steps):
        notes = [f"the path stands still: it is already where '{text}' leads"]
    states = _sample(steps, count - 1)
    rotation = motions.rotation_from_euler(states[:, 3], states[:, 4], states[:, 5])
    walk_from_camera = motions.motion(rotation, states[:, :3])
    poses = motions.inverse(walk_from_camera) @ level.camera_from_world.double().cpu()
    poses = torch.cat([start.camera_from_world[None], poses.to(start.camera_from_world)])
    return Plan(replace(start, camera_from_world=poses, intrinsics=start.intrinsics.repeat(count, 1, 1)), notes)


def _plan_file(file: Path, start: Cameras, lengths: _Lengths, scale: float) -> Plan:
    found = path_files.read(file, lens=start)
    count, notes = lengths.round(len(found) - 1, f"the path of {len(found)} poses in {file.name}")
    path = paths.reanchor(found, start, scale=scale)
    if count > 2 * len(path):  # few poses for many frames: round off the corners between them
        times = torch.linspace(0, 1, len(path), dtype=torch.float64)[1:]
        return Plan(paths.keyframes(start, count, keys=path[1:], times=times), notes)
    return Plan(paths.resample(path, count), notes)


def _sample(steps: list[Step], frames: int) -> Tensor:
    """States [frames, 6] after the start; every step ends on a whole frame, shares of time as close as that allows."""
    total = sum(step.frames for step in steps)
    states, done, clock = [], 0, 0.0
    for step in steps:
        clock += step.frames
        end = round(frames * clock / total) if total > 0 else frames
        share = torch.arange(1, end - done + 1, dtype=torch.float64) / max(end - done, 1)
        states.append(step.states(share))
        done = end
    sampled = torch.cat(states)
    sampled[-1] = steps[-1].settled
    return sampled


@dataclass(frozen=True)
class _Lengths:
    """How many frames a path gets."""

    frames: int | None
    chunk: int
    min_frames: int | None

    def __post_init__(self) -> None:
        if self.chunk < 1 or (self.frames is not None and not 1 < self.frames <= MAX_FRAMES):
            raise PathError(f"a path wants 2 to {MAX_FRAMES} frames in chunks of at least 1, got {self}")

    def round(self, natural: float, what: str) -> tuple[int, list[str]]:
        """Motion frames wanted -> (1 + k * chunk, notes)."""
        wanted = natural if self.frames is None else self.frames - 1
        chunks = math.ceil(wanted / self.chunk - (_HURRY if self.frames is None else 0))
        least = 1 if self.min_frames is None else math.ceil((self.min_frames - 1) / self.chunk)
        count = max(chunks, least, 1) * self.chunk
        if self.frames is not None and count + 1 != self.frames:
            return 1 + count, [
                f"{self.frames} frames were asked for, {count + 1} are made: 1 and whole chunks of {self.chunk}"
            ]
        if self.frames is not None or abs(natural - count) < 0.5:
            return 1 + count, []
        return 1 + count, [f"{what} was spread evenly over {count} frames, whole chunks of {self.chunk}"]


class _Reader:
    """Reads the words of one command from left to right."""

    def __init__(self, words: list[tuple[str, int]], sentence: str) -> None:
        self.words, self.sentence, self.at = words, sentence, 0

    def command(self) -> Command:
        command = self._motion()
        if self._next("in"):
            command = replace(command, frames=self._frames(more_than=0))
        if self.at < len(self.words):
            self._fail("does not belong here", ["',' and the next command", "'in 80 frames'"])
        return command

    def _motion(self) -> Command:
        verb = self._one_of(_VERBS, "a command")
        if verb == "back" and self._next("to"):
            self._one_of(("start",), "a place")
            return Command("return")
        if verb in ("forward", "back"):
            return Command("move", verb, self._measure("a distance", *_LENGTH)[0])
        if verb in _DIRECTIONS:
            wanted = "a distance (step aside) or an angle such as 30deg (turn)"
            amount, angle = self._measure(wanted, *_LENGTH, "angle")
            return Command("turn" if angle else "move", verb, amount, angle)
        if verb == "look" and self._next("at"):
            return Command("look", self._one_of(("start",), "a place"))
        if verb == "look" and self._next("ahead"):
            return Command("look", "ahead")
        if verb == "speed":
            amount, angle = self._measure("a distance or an angle a frame, above 0", *_LENGTH, "angle")
            if amount == 0:
                self.at -= 1
                self._fail("is no speed", ["a number above 0"])
            return Command("speed", "", amount, angle)
        if verb == "wait":
            return Command("wait", frames=self._frames())
        if verb == "zoom":
            way = self._one_of(("in", "out"), "a direction")
            return Command("zoom", way, self._measure("a share of the depth", "")[0])
        return self._turning(verb)

    def _turning(self, verb: str) -> Command:
        directions = ("left", "right") if verb == "roll" else _DIRECTIONS
        direction = self._one_of(directions, "a direction")
        amount, _ = self._measure("an angle such as 30deg", "angle")
        command = Command("turn" if verb == "look" else verb, direction, amount, True)
        if verb == "orbit" and self._next("around"):
            command = replace(command, around=self._measure("a distance", *_LENGTH)[0])
        return command

    def _one_of(self, known: tuple[str, ...], what: str) -> str:
        word = _SYNONYMS.get(self._word(), self._word())
        if word not in known:
            self._fail(f"is not {what}", list(known))
        self.at += 1
        return word

    def _next(self, *words: str) -> bool:
        found = self._word() in words
        self.at += found
        return found

    def _frames(self, more_than: float = -1) -> float:
        amount, _ = self._measure("a number of frames", "", "frames")
        if amount <= more_than:
            self.at -= 1
            self._fail("is too few", [f"more frames than {more_than:g}"])
        return amount

    def _measure(self, what: str, *kinds: str) -> tuple[float, bool]:
        """A number with its unit, attached or as the next word, of one of the `kinds` -> (amount, is an angle)."""
        match = _NUMBER.match(self._word())
        if match is None:
            self._fail(f"is not {what}", [what])
        amount, unit = float(match[1]), match[2] or ""
        if amount < 0 or not math.isfinite(amount):
            self._fail("is negative", ["numbers from 0 on", "the opposite direction"])
        start, self.at = self.at, self.at + 1
        if not unit and self._word() in _KINDS:
            unit = self._word()
            self.at += 1
        kind = _KINDS.get(unit, "")
        if kind not in kinds:
            self.at = start
            self._fail(f"is not {what}", [what])
        return amount, kind == "angle"

    def _word(self) -> str:
        return self.words[self.at][0] if self.at < len(self.words) else ""

    def _fail(self, problem: str, known: list[str]) -> NoReturn:
        if self.at >= len(self.words):
            ended, column = self.words[-1]
            raise PathError(
                f"path '{self.sentence}': the command ends after '{ended}' (column {column}); wanted: {_listed(known)}"
            )
        word, column = self.words[self.at]
        close = difflib.get_close_matches(word, known, 1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise PathError(
            f"path '{self.sentence}': '{word}' at column {column} {problem}{hint}; wanted: {_listed(known)}"
        )


def _listed(words) -> str:
    return ", ".join(words)


def _gaze(states: Tensor) -> Tensor:
    """Unit direction [*, 3] of the gaze of states [*, 6]."""
    yaw, pitch = states[..., 3], states[..., 4]
    level = pitch.cos()
    return torch.stack([yaw.sin() * level, -pitch.sin(), yaw.cos() * level], dim=-1)


def _swung(first: Tensor, states: Tensor, around: float) -> Tensor:
    """States [*, 6] with the angles of `states`, placed so that the point `around` ahead of `first` stays ahead."""
    pivot = first[:3] + around * _gaze(first)
    return torch.cat([pivot - around * _gaze(states), states[..., 3:]], dim=-1)


def levelled(camera: Cameras, up: Tensor) -> Cameras:
    """The camera [] held level: `up` [3] is up in its picture, and it looks ahead as far as that allows."""
    upright = camera.to("cpu", torch.float64)
    up = up.to(upright.camera_from_world)
    up = up / up.norm()
    ahead = upright.camera_from_world[2, :3]
    ahead = ahead - (ahead @ up) * up
    if float(ahead.norm()) < 1e-6:
        raise PathError("a camera that looks straight up or down cannot be held level; correct the horizon by less")
    ahead = ahead / ahead.norm()
    rotation = torch.stack([torch.linalg.cross(ahead, up), -up, ahead])
    return replace(upright, camera_from_world=motions.motion(rotation, -rotation @ upright.centres))


def _state(camera: Cameras, start_of_walk: Cameras) -> Tensor:
    """[6] of one camera in the frame of the walk's first camera."""
    relative = camera.to("cpu", torch.float64).relative_to(start_of_walk.to("cpu", torch.float64)).world_from_camera
    return torch.cat([relative[:3, 3], torch.stack(motions.euler_from_rotation(relative[:3, :3]))])


def _target(
    command: Command, state: Tensor, home: Tensor, reference_depth: float, unit: float
) -> tuple[Tensor, Tensor]:
    """The state [6] that a command leads to, and the same pose with angles brought back from whole turns."""
    last = state.clone()
    angle = math.radians(command.amount)
    yaw = state[3]
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    ahead, right, up = (
        torch.stack(v) for v in ([yaw.sin(), zero, yaw.cos()], [yaw.cos(), zero, -yaw.sin()], [zero, -one, zero])
    )
    if command.verb == "move":
        direction = {"forward": ahead, "back": -ahead, "right": right, "left": -right, "up": up, "down": -up}
        last[:3] += command.amount * unit * direction[command.direction]
    elif command.verb == "zoom":
        sign = 1 if command.direction == "in" else -1
        last[:3] += sign * command.amount * reference_depth * _gaze(state)
    elif command.verb == "turn":
        axis = 3 if command.direction in ("left", "right") else 4
        last[axis] += angle if command.direction in ("right", "up") else -angle
    elif command.verb == "roll":
        last[5] += angle if command.direction == "right" else -angle
    elif command.verb == "orbit":  # going left means turning right, going up means looking down
        axis = 3 if command.direction in ("left", "right") else 4
        last[axis] += angle if command.direction in ("left", "down") else -angle
    elif command.verb == "return":
        return _unwound(home, state), home
    elif command.verb == "look":
        settled = torch.cat([state[:3], _heading(command.direction, state, home, reference_depth)])
        return _unwound(settled, state), settled
    return last, last


def _heading(where: str, state: Tensor, home: Tensor, reference_depth: float) -> Tensor:
    """(yaw, pitch, roll) of looking ahead or at the start, from where `state` stands."""
    x, y, z = -state[:3]
    if where == "ahead":
        return torch.stack([state[3], torch.zeros_like(x), torch.zeros_like(x)])
    if float(state[:3].norm()) < 1e-3 * reference_depth:
        return home[3:]
    level = float(torch.hypot(x, z)) > 1e-3 * reference_depth  # else it is straight below or above: any way will do
    return torch.stack(
        [torch.atan2(x, z) if level else state[3], torch.atan2(-y, torch.hypot(x, z)), torch.zeros_like(x)]
    )


def _unwound(target: Tensor, state: Tensor) -> Tensor:
    """`target` with whole turns added to its angles so that each is the short way from `state`."""
    turns = torch.round((state - target) / (2 * math.pi))
    turns[:3] = 0
    return target + 2 * math.pi * turns


def _natural_frames(command: Command, step: Step, speed: float, turn_speed: float) -> float:
    """How long a step takes at its mean speed; the slower of its travel and its turn decides."""
    if command.frames is not None:
        return command.frames
    change = (step.last - step.first).abs()
    angle = float(change[3:].max())
    distance = float((step.last - step.first)[:3].norm()) if step.around is None else angle * step.around
    return max(distance / speed, angle / turn_speed)
