"""The Z-order curve: bits interleaved, there and back."""

import pytest
import torch

from photowalk.kernels.morton import AXIS_BITS, cells_of, codes_of

HALF = 2 ** (AXIS_BITS - 1)


def code_readably(cell):
    bits = [format(axis + HALF, f"0{AXIS_BITS}b") for axis in cell]
    return int("".join(z + y + x for x, y, z in zip(*bits)), 2)


def test_bits_of_the_axes_take_turns():
    cells = torch.randint(-HALF, HALF, (50, 3), generator=torch.Generator().manual_seed(4))
    assert codes_of(cells).tolist() == [code_readably(cell) for cell in cells.tolist()]


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_numbers_lead_back_to_their_cells(count):
    cells = torch.randint(-HALF, HALF, (count, 3), generator=torch.Generator().manual_seed(5))
    assert torch.equal(cells_of(codes_of(cells)), cells)
    corners = torch.tensor([[-HALF] * 3, [HALF - 1] * 3])
    assert codes_of(corners).tolist() == [0, 2 ** (3 * AXIS_BITS) - 1]
