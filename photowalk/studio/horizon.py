"""How askew the photo's camera was held, in two angles that people understand, and the up direction that follows."""

from __future__ import annotations

import math

Up = tuple[float, float, float]


def up_of(roll_deg: float, pitch_deg: float) -> Up:
    """Unit up in the photo camera's axes, which are the world's, for a camera rolled clockwise and pitched up."""
    roll, pitch = math.radians(roll_deg), math.radians(pitch_deg)
    return (math.sin(roll) * math.cos(pitch), -math.cos(roll) * math.cos(pitch), -math.sin(pitch))


def horizon_of(up: Up | None) -> tuple[float, float]:
    """Roll and pitch in degrees of `up_of`; None: the camera was held level."""
    if up is None:
        return 0.0, 0.0
    return math.degrees(math.atan2(up[0], -up[1])), math.degrees(math.asin(max(-1.0, min(1.0, -up[2]))))
