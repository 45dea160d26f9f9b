"""Front-to-back compositing and its exact derivative on a CPU: all pixels of a tile at once, side by side in the lanes
of vector registers.

The same sums as in `rasterise_pixels`. Warp has no words for lanes, so what is done to a tile is written in C++, as
loops over its pixels which compilers vectorise: they hold no branches, and pixels that are done, or not reached, take
part with a share of nothing. So what is blended has to be finite, or it shows in its neighbours.
"""

from __future__ import annotations

import warp as wp

from photowalk.kernels.rasterise_pixels import ALPHA_MAXIMUM, TRANSMITTANCE_MINIMUM, Ellipse, EllipseGradient

wp.set_module_options({"enable_backward": False})

SIDE = 4  # pixels of a tile, as in the C++ below: no vector register holds more than sixteen numbers

_ALPHA_MAXIMUM = wp.constant(ALPHA_MAXIMUM)
_TRANSMITTANCE_MINIMUM = wp.constant(TRANSMITTANCE_MINIMUM)

# e^-f = 2^-u: the whole part of u goes to the exponent's bits, the rest (at most a half) into a Taylor series.
_COMMON = """
    constexpr int LANES = 16;
    const int top = tile / columns * 4, left = tile % columns * 4;
    const int begin = first.data[tile], end = first.data[tile + 1];
    float xs[LANES], ys[LANES];
    for (int p = 0; p < LANES; ++p) {
        xs[p] = left + p % 4 + 0.5f;
        ys[p] = top + p / 4 + 0.5f;
    }
    const auto index = [=](int p) {
        const int i = top + p / 4, j = left + p % 4;
        return i < height && j < width ? i * width + j : -1;
    };
    const auto fall_off_at = [](const float *e, float dx, float dy) {
        return e[2] * dx * dx + e[3] * dx * dy + e[4] * dy * dy;
    };
    const auto alpha_at = [=](float opacity, float fall_off) {
        const float u = fall_off * 1.44269504f;
        const int whole = (int)(u + 0.5f);
        const float v = (float)whole - u;
        float power = 1.52527338e-5f;
        power = power * v + 1.54035304e-4f;
        power = power * v + 1.33335581e-3f;
        power = power * v + 9.61812911e-3f;
        power = power * v + 5.55041087e-2f;
        power = power * v + 2.40226507e-1f;
        power = power * v + 6.93147181e-1f;
        power = power * v + 1.0f;
        const float alpha = opacity * power * __builtin_bit_cast(float, (127 - whole) << 23);
        return alpha < alpha_maximum ? alpha : alpha_maximum;
    };
    const auto sum = [](float *values) {
        for (int p = 0; p < 8; ++p) values[p] += values[p + 8];
        for (int p = 0; p < 4; ++p) values[p] += values[p + 4];
        return (values[0] + values[2]) + (values[1] + values[3]);
    };
"""

# Of the Gaussians that are reached by none of the tile's open pixels, nothing more is asked.
_FORWARDS = """
    float light[LANES];
    int open[LANES];
    for (int p = 0; p < LANES; ++p) {
        light[p] = 1.0f;
        open[p] = index(p) >= 0;
    }
    for (int pair = begin; pair < end; ++pair) {
        const int splat = splats.data[pair];
        const float *e = &ellipses.data[splat].c[0];
        float fall_off[LANES], alpha[LANES], share[LANES], remaining[LANES];
        int reached[LANES], any_reached = 0, any_open = 0;
        for (int p = 0; p < LANES; ++p) {
            fall_off[p] = fall_off_at(e, xs[p] - e[0], ys[p] - e[1]);
            reached[p] = (fall_off[p] >= 0.0f) & (fall_off[p] < e[6]) & open[p];
            any_reached |= reached[p];
        }
        if (!any_reached) continue;
        for (int p = 0; p < LANES; ++p) {
            alpha[p] = alpha_at(e[5], reached[p] ? fall_off[p] : 0.0f);
            remaining[p] = reached[p] ? light[p] * (1.0f - alpha[p]) : light[p];
            open[p] &= remaining[p] >= transmittance_minimum;
            reached[p] &= open[p];
            any_open |= open[p];
            share[p] = reached[p] ? alpha[p] * light[p] : 0.0f;
        }
        %s
        for (int p = 0; p < LANES; ++p) light[p] = reached[p] ? remaining[p] : light[p];
        if (!any_open) break;
    }
"""

_BLEND = (
    _COMMON
    + """
    float red[LANES] = {}, green[LANES] = {}, blue[LANES] = {}, deep[LANES] = {}, half_way[LANES] = {};
    int stop[LANES];
    for (int p = 0; p < LANES; ++p) stop[p] = begin;
"""
    + _FORWARDS
    % """
        const float *feature = &features.data[splat].c[0];
        const float r = feature[0], g = feature[1], b = feature[2], d = feature[3];
        for (int p = 0; p < LANES; ++p) {
            red[p] += share[p] * r;
            green[p] += share[p] * g;
            blue[p] += share[p] * b;
            deep[p] += share[p] * d;
            half_way[p] = (reached[p] & (light[p] > 0.5f) & (remaining[p] <= 0.5f)) ? d : half_way[p];
            stop[p] = reached[p] ? pair + 1 : stop[p];
        }
"""
    + """
    for (int p = 0; p < LANES; ++p) {
        const int at = index(p);
        if (at < 0) continue;
        blended.data[at] = wp::vec4(red[p], green[p], blue[p], deep[p]);
        transmittance.data[at] = light[p];
        median.data[at] = half_way[p];
        last.data[at] = stop[p];
    }
"""
)

_SHARE_OUT = (
    _COMMON
    + """
    float value[4][LANES];
    for (int p = 0; p < LANES; ++p)
        for (int k = 0; k < 4; ++k) value[k][p] = index(p) < 0 ? 0.0f : values.data[index(p)].c[k];
"""
    + _FORWARDS
    % """
        for (int k = 0; k < 4; ++k) {
            float products[LANES];
            for (int p = 0; p < LANES; ++p) products[p] = share[p] * value[k][p];
            shares.data[pair].c[k] = sum(products);
        }
"""
)

# From the last Gaussian to the first: `light` is what is in front of each, `behind` what gradient . (all behind) is.
_BACKWARDS = (
    _COMMON
    + """
    float gradient[4][LANES], light[LANES], from_left_over[LANES], behind[LANES] = {};
    int stop[LANES], pair = begin;
    for (int p = 0; p < LANES; ++p) {
        const int at = index(p);
        stop[p] = at < 0 ? begin : last.data[at];
        light[p] = at < 0 ? 1.0f : transmittance.data[at];
        from_left_over[p] = at < 0 ? 0.0f : grad_transmittance.data[at] * light[p];
        for (int k = 0; k < 4; ++k) gradient[k][p] = at < 0 ? 0.0f : grad_blended.data[at].c[k];
        pair = stop[p] > pair ? stop[p] : pair;
    }
    while (--pair >= begin) {
        const int splat = splats.data[pair];
        const float *e = &ellipses.data[splat].c[0];
        float dx[LANES], dy[LANES], fall_off[LANES];
        int reached[LANES], any_reached = 0;
        for (int p = 0; p < LANES; ++p) {
            dx[p] = xs[p] - e[0];
            dy[p] = ys[p] - e[1];
            fall_off[p] = fall_off_at(e, dx[p], dy[p]);
            reached[p] = (fall_off[p] >= 0.0f) & (fall_off[p] < e[6]) & (pair < stop[p]);
            any_reached |= reached[p];
        }
        if (!any_reached) continue;
        const float *feature = &features.data[splat].c[0];
        const float r = feature[0], g = feature[1], b = feature[2], d = feature[3];
        float by_feature[4][LANES], moved[6][LANES];
        for (int p = 0; p < LANES; ++p) {
            const float alpha = alpha_at(e[5], reached[p] ? fall_off[p] : 0.0f);
            light[p] = reached[p] ? light[p] / (1.0f - alpha) : light[p];
            const float along = gradient[0][p] * r + gradient[1][p] * g + gradient[2][p] * b + gradient[3][p] * d;
            const float share = reached[p] ? alpha * light[p] : 0.0f;
            const float by_alpha = light[p] * along - (behind[p] + from_left_over[p]) / (1.0f - alpha);
            const int moves = reached[p] & (alpha < alpha_maximum);  // a clamped alpha does not
            const float by_fall_off = moves ? -by_alpha * alpha : 0.0f;
            for (int k = 0; k < 4; ++k) by_feature[k][p] = share * gradient[k][p];
            moved[0][p] = -by_fall_off * (2.0f * e[2] * dx[p] + e[3] * dy[p]);
            moved[1][p] = -by_fall_off * (e[3] * dx[p] + 2.0f * e[4] * dy[p]);
            moved[2][p] = by_fall_off * 0.5f * dx[p] * dx[p];
            moved[3][p] = by_fall_off * dx[p] * dy[p];
            moved[4][p] = by_fall_off * 0.5f * dy[p] * dy[p];
            moved[5][p] = -by_fall_off / e[5];
            behind[p] += share * along;
        }
        for (int k = 0; k < 4; ++k) grad_features.data[pair].c[k] = sum(by_feature[k]);
        for (int k = 0; k < 6; ++k) grad_ellipses.data[pair].c[k] = sum(moved[k]);
    }
"""
)


@wp.func_native(_BLEND)
def _blend(
    tile: int,
    columns: int,
    height: int,
    width: int,
    alpha_maximum: float,
    transmittance_minimum: float,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    ellipses: wp.array(dtype=Ellipse),
    features: wp.array(dtype=wp.vec4),
    blended: wp.array2d(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    median: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
): ...


@wp.func_native(_BACKWARDS)
def _blend_backwards(
    tile: int,
    columns: int,
    height: int,
    width: int,
    alpha_maximum: float,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    ellipses: wp.array(dtype=Ellipse),
    features: wp.array(dtype=wp.vec4),
    transmittance: wp.array2d(dtype=wp.float32),
    last: wp.array2d(dtype=wp.int32),
    grad_blended: wp.array2d(dtype=wp.vec4),
    grad_transmittance: wp.array2d(dtype=wp.float32),
    grad_ellipses: wp.array(dtype=EllipseGradient),
    grad_features: wp.array(dtype=wp.vec4),
): ...


@wp.func_native(_SHARE_OUT)
def _share_out(
    tile: int,
    columns: int,
    height: int,
    width: int,
    alpha_maximum: float,
    transmittance_minimum: float,
    splats: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    ellipses: wp.array(dtype=Ellipse),
    values: wp.array2d(dtype=wp.vec4),
    shares: wp.array(dtype=wp.vec4),
): ...


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
    _blend(
        first_tile + wp.tid(),
        columns,
        last.shape[0],
        last.shape[1],
        _ALPHA_MAXIMUM,
        _TRANSMITTANCE_MINIMUM,
        splats,
        first,
        ellipses,
        features,
        blended,
        transmittance,
        median,
        last,
    )


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
    _blend_backwards(
        first_tile + wp.tid(),
        columns,
        last.shape[0],
        last.shape[1],
        _ALPHA_MAXIMUM,
        splats,
        first,
        ellipses,
        features,
        transmittance,
        last,
        grad_blended,
        grad_transmittance,
        grad_ellipses,
        grad_features,
    )


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
    _share_out(
        first_tile + wp.tid(),
        columns,
        values.shape[0],
        values.shape[1],
        _ALPHA_MAXIMUM,
        _TRANSMITTANCE_MINIMUM,
        splats,
        first,
        ellipses,
        values,
        shares,
    )
