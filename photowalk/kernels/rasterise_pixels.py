"""Front-to-back compositing and its exact derivative, one pixel per thread: what suits GPUs.

It says what the sums of `rasterise_lanes`, which suits CPUs, have to be.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

ALPHA_MAXIMUM = 0.999  # keeps 1 - alpha, by which the backward pass divides, away from zero
TRANSMITTANCE_MINIMUM = 1e-4  # what lies behind this little light is not looked at

Ellipse = wp.types.vector(length=8, dtype=wp.float32)  # centre x, y; conic a / 2, b, c / 2; opacity; reach; nothing
EllipseGradient = wp.types.vector(length=6, dtype=wp.float32)  # by centre x, y; conic a, b, c; opacity

_ALPHA_MAXIMUM = wp.constant(ALPHA_MAXIMUM)
_TRANSMITTANCE_MINIMUM = wp.constant(TRANSMITTANCE_MINIMUM)


@wp.func
def _row_and_column(tile: int, pixel: int, side: int, columns: int):
    return (tile / columns) * side + pixel / side, (tile % columns) * side + pixel % side


@wp.func
def _fall_off(ellipse: Ellipse, dx: float, dy: float) -> float:
    return ellipse[2] * dx * dx + ellipse[3] * dx * dy + ellipse[4] * dy * dy


@wp.func
def _reached(fall_off: float, ellipse: Ellipse) -> bool:
    """Whether a Gaussian takes enough of the light at a place to be looked at."""
    return fall_off >= 0.0 and fall_off < ellipse[6]


@wp.func
def _alpha(ellipse: Ellipse, fall_off: float) -> float:
    """What a Gaussian takes of the light where it reaches."""
    return wp.min(ellipse[5] * wp.exp(-fall_off), _ALPHA_MAXIMUM)


@wp.kernel
def forward(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    ellipses: wp.array(dtype=Ellipse),
    features: wp.array(dtype=wp.vec4),
    blended: wp.array2d(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    median: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= transmittance.shape[0] or j >= transmittance.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    light = wp.float32(1.0)
    half_way = wp.float32(0.0)
    stop = first[tile]
    for pair in range(first[tile], first[tile + 1]):
        splat = splats[pair]
        ellipse = ellipses[splat]
        fall_off = _fall_off(ellipse, x - ellipse[0], y - ellipse[1])
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
            remaining = light * (1.0 - alpha)
            if remaining < _TRANSMITTANCE_MINIMUM:
                break
            feature = features[splat]
            total += (alpha * light) * feature
            if light > 0.5 and remaining <= 0.5:
                half_way = feature[3]
            light = remaining
            stop = pair + 1
    blended[i, j] = total
    transmittance[i, j] = light
    median[i, j] = half_way
    last[i, j] = stop


@wp.kernel
def backward(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    ellipses: wp.array(dtype=Ellipse),
    features: wp.array(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
    grad_blended: wp.array2d(dtype=wp.vec4),
    grad_transmittance: wp.array2d(dtype=wp.float32),
    grad_ellipses: wp.array(dtype=EllipseGradient),
    grad_features: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= transmittance.shape[0] or j >= transmittance.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    gradient = grad_blended[i, j]
    left_over = transmittance[i, j]
    from_left_over = grad_transmittance[i, j] * left_over
    light = wp.float32(
        left_over
    )  # in front of the current Gaussian, recovered while walking from the last to the first
    behind = wp.float32(0.0)  # gradient . (what the Gaussians behind contribute)
    pair = last[i, j] - 1
    while pair >= first[tile]:
        splat = splats[pair]
        ellipse = ellipses[splat]
        dx = x - ellipse[0]
        dy = y - ellipse[1]
        fall_off = _fall_off(ellipse, dx, dy)
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
            light = light / (1.0 - alpha)
            along = wp.dot(gradient, features[splat])
            wp.atomic_add(grad_features, pair, (alpha * light) * gradient)
            if alpha < _ALPHA_MAXIMUM:  # a clamped alpha does not move
                by_alpha = light * along - (behind + from_left_over) / (1.0 - alpha)
                by_fall_off = -by_alpha * alpha
                moved = EllipseGradient(
                    -by_fall_off * (2.0 * ellipse[2] * dx + ellipse[3] * dy),
                    -by_fall_off * (ellipse[3] * dx + 2.0 * ellipse[4] * dy),
                    by_fall_off * 0.5 * dx * dx,
                    by_fall_off * dx * dy,
                    by_fall_off * 0.5 * dy * dy,
                    by_alpha * alpha / ellipse[5],
                )
                wp.atomic_add(grad_ellipses, pair, moved)
            behind += alpha * light * along
        pair -= 1


@wp.kernel
def share_out(
    first_tile: int,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    side: int,
    columns: int,
    ellipses: wp.array(dtype=Ellipse),
    values: wp.array2d(dtype=wp.vec4),
    shares: wp.array(dtype=wp.vec4),
):
    thread = wp.tid()
    tile = first_tile + thread / (side * side)
    i, j = _row_and_column(tile, thread % (side * side), side, columns)
    if i >= values.shape[0] or j >= values.shape[1]:
        return
    x = float(j) + 0.5
    y = float(i) + 0.5
    value = values[i, j]
    light = wp.float32(1.0)
    for pair in range(first[tile], first[tile + 1]):
        ellipse = ellipses[splats[pair]]
        fall_off = _fall_off(ellipse, x - ellipse[0], y - ellipse[1])
        if _reached(fall_off, ellipse):
            alpha = _alpha(ellipse, fall_off)
            remaining = light * (1.0 - alpha)
            if remaining < _TRANSMITTANCE_MINIMUM:
                break
            wp.atomic_add(shares, pair, (alpha * light) * value)
            light = remaining
