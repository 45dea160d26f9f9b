"""Rotary positions of packed tokens."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from photowalk.models.history_layout import HistoryLayout
from photowalk.models.rope import packed_angles, rotate

GOLDEN = Path(__file__).parent / "golden"


def naive_angles(layout: HistoryLayout, head_dim: int, rows: int, columns: int) -> torch.Tensor:
    """One token at a time, in float64: the mean of the angles that its block covers, the last frame, row and column
    standing in for what lies beyond the end."""
    space = 2 * (head_dim // 6)
    dims = (head_dim - 2 * space, space, space)
    frequencies = [10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim) for dim in dims]
    tokens = []
    for segment in layout.segments(rows, columns):
        axes = (segment.frames, range(rows), range(columns))
        centres = []
        for positions, factor in zip(axes, segment.factors):
            last = positions[-1]
            starts = range(positions[0], last + 1, factor)
            centres.append([sum(min(s + i, last) for i in range(factor)) / factor for s in starts])
        for t in centres[0]:
            for row in centres[1]:
                for column in centres[2]:
                    tokens.append(torch.cat([p * f for p, f in zip((t, row, column), frequencies)]))
    return torch.stack(tokens)


def test_angles_are_those_of_the_mean_position():
    layout = HistoryLayout.parse("f1k1f2s2f1s1f6k4f2k2f1k1_g3")
    for rows, columns in ((4, 6), (3, 5), (1, 2)):
        expected = naive_angles(layout, 32, rows, columns)
        torch.testing.assert_close(packed_angles(layout, 32, rows, columns).double(), expected, atol=1e-5, rtol=0)


def test_published_angles():
    golden = load_file(GOLDEN / "rope.safetensors")
    layout = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")
    angles = packed_angles(layout, 128, 30, 52)
    torch.testing.assert_close(angles[golden["rows"]], golden["freqs"], atol=1e-6, rtol=0)


def test_rotation_keeps_lengths_and_sees_only_differences_of_positions():
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 2, 16), torch.randn(1, 1, 2, 16)
    frequencies = torch.rand(8)

    def product(p: float, q: float) -> torch.Tensor:
        a, b = (p * frequencies)[None], (q * frequencies)[None]
        return (rotate(query, a.cos(), a.sin()) * rotate(key, b.cos(), b.sin())).sum(-1)

    torch.testing.assert_close(product(3.0, 5.5), product(10.0, 12.5), atol=1e-5, rtol=1e-5)
    turned = rotate(query, frequencies.cos()[None], frequencies.sin()[None])
    torch.testing.assert_close(turned.norm(dim=-1), query.norm(dim=-1))


def test_rotation_is_complex_multiplication_of_neighbouring_pairs():
    torch.manual_seed(0)
    heads, angles = torch.randn(2, 5, 3, 12), torch.randn(5, 6)
    expected = (
        torch.view_as_complex(heads.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    torch.testing.assert_close(rotate(heads, angles.cos(), angles.sin()), torch.view_as_real(expected).flatten(-2))


def test_angles_cached_during_inference_can_be_trained_with():
    layout = HistoryLayout.parse("f1k1f1k1_g7")
    with torch.inference_mode():
        packed_angles(layout, 16, 2, 2)
    angles = packed_angles(layout, 16, 2, 2)
    heads = torch.randn(1, len(angles), 1, 16, requires_grad=True)
    rotate(heads, angles.cos(), angles.sin()).sum().backward()
    assert heads.grad is not None
