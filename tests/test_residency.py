"""Weights that stay, travel, visit or are kept in one byte: the numbers stay the same, or as close as is stated."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from test_depth_anything3 import TINY
from tiny_published import HEIGHT, WIDTH, tiny_clip, tiny_denoiser, tiny_published, tiny_tokenizer, tiny_umt5, tiny_wan
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from photowalk.geometry.paths import forward
from photowalk.models.clip_image import ClipImage
from photowalk.models.depth_anything3.network import DepthAnything3
from photowalk.models.umt5_text import Umt5Text
from photowalk.models.wan_codec import WanCodec
from photowalk.models.weight_only import WeightOnlyLinear
from photowalk.presets.published import lyra2_footprint
from photowalk.world.placement import Copies, Placement
from photowalk.world.residency.arrange import arrange, block_layers
from photowalk.world.residency.plan import GB, Footprint, Plan, PlanError, choose_plan
from photowalk.world.residency.streaming import WeightStream
from photowalk.world.residency.visiting import VisitingCodec, let_visit

CPU = torch.device("cpu")
PLACEMENT = Placement(CPU, torch.float32, "a test")
NOTHING = Footprint(2, 1, 1, *[0] * 11)


def plan(streamed=(), weights="bfloat16"):
    return Plan(NOTHING, 0, streamed, weights, visiting=True)


def walked(generator):
    torch.manual_seed(4)
    state = generator.start(torch.rand(3, HEIGHT, WIDTH), depth=torch.full((HEIGHT, WIDTH), 2.0), focal_px=40.0)
    return generator.extend(state, forward(state.cameras[-1], 81, distance=0.2)[1:], "a hall of stone", seed=1)


def arranged(chosen):
    torch.manual_seed(0)
    network = tiny_denoiser()
    arrange(network, chosen, Copies(CPU), lambda name, module: None)
    return network


@pytest.fixture(scope="module")
def resident():
    return tiny_published(PLACEMENT, denoiser=arranged(None))


@pytest.fixture(scope="module")
def walk(resident):
    return walked(resident)


@pytest.mark.parametrize("streamed", [(1,), (0, 1)])
def test_a_chunk_with_streamed_blocks_and_visitors_is_the_same_bit_for_bit(resident, walk, streamed):
    codec, text, image = WanCodec(tiny_wan()), tiny_umt5(), tiny_clip()
    codec.load_state_dict(resident.codec.state_dict())
    text.load_state_dict(resident.text.network.state_dict())
    image.load_state_dict(resident.image.network.state_dict())
    let_visit(text, CPU)
    let_visit(image, CPU)
    other = walked(
        replace(
            resident,
            denoiser=arranged(plan(streamed)),
            codec=VisitingCodec(codec, CPU),
            text=Umt5Text(text, tiny_tokenizer(), length=32),
            image=ClipImage(image),
        )
    )
    assert torch.equal(walk.video, other.video)
    assert torch.equal(walk.latents, other.latents)
    assert all(torch.equal(walk.decoder[name], other.decoder[name]) for name in walk.decoder)


class Counted(Copies):
    """Copies as they are, and a list of the targets' numbers after each."""

    def __init__(self):
        super().__init__(CPU)
        self.copied = []

    def begin(self, target, pieces):
        self.copied.append(target.data_ptr())
        return super().begin(target, pieces)


def test_the_next_unit_is_sent_for_before_it_is_needed_and_each_once_in_a_round():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4).requires_grad_(False) for _ in range(4)]
    features = torch.randn(2, 4)
    wanted = [layer(features) for layer in layers]
    copies = Counted()
    WeightStream(([layer] for layer in layers), copies)
    assert torch.equal(layers[0](features), wanted[0])
    assert len(copies.copied) == 2  # itself and the next
    for _ in range(3):
        assert all(torch.equal(layer(features), right) for layer, right in zip(layers, wanted))
    assert len(copies.copied) == 3 * 4 + 1
    assert len(set(copies.copied)) == 2  # slots


def test_units_may_be_used_in_any_order():
    torch.manual_seed(0)
    layers = [nn.Linear(3, 3).requires_grad_(False) for _ in range(5)]
    features = torch.randn(2, 3)
    wanted = [layer(features) for layer in layers]
    WeightStream(([layer] for layer in layers), Copies(CPU))
    for index in (4, 0, 3, 3, 2, 4, 1, 0, 0, 2):
        assert torch.equal(layers[index](features), wanted[index])


def test_host_memory_comes_in_pieces_that_hold_little_more_than_was_asked_for():
    for size in (1, 2**22, 2**22 + 1, 37_000_000):
        pieces = [len(piece) for piece in Copies(CPU).host_memory(size)]
        assert size <= sum(pieces) < size + 2**22
        assert all(piece & (piece - 1) == 0 for piece in pieces)


@pytest.mark.parametrize(("weights", "bound"), [("int8", 0.010), ("float8", 0.028)])
def test_the_error_of_weights_in_one_byte_is_as_stated(weights, bound):
    torch.manual_seed(0)
    linear = nn.Linear(2048, 512).bfloat16().requires_grad_(False)
    nn.init.normal_(linear.weight, std=0.02)
    features = torch.randn(64, 2048)
    exact = features @ linear.weight.float().T
    coarse = WeightOnlyLinear(linear, weights)
    assert coarse.stored.element_size() == 1
    error = (features @ coarse.weight.float().T - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert bound / 2 < error < bound
    assert torch.equal(
        coarse(features.bfloat16()), nn.functional.linear(features.bfloat16(), coarse.weight, linear.bias)
    )


def test_the_error_of_products_in_float8_is_as_stated():
    torch.manual_seed(0)
    linear = nn.Linear(2048, 512).bfloat16().requires_grad_(False)
    nn.init.normal_(linear.weight, std=0.02)
    features = torch.randn(2, 32, 2048)
    features[0, 3] *= 1000  # rows have scales of their own
    features[1, 5] = 0
    exact = nn.functional.linear(features, linear.weight.float(), linear.bias.float())
    coarse = WeightOnlyLinear(linear, "float8-matmul")
    assert coarse.stored.element_size() == 1
    for given in (features, features.bfloat16()):
        product = coarse(given)
        assert product.dtype == given.dtype
        error = (product.float() - exact).norm(dim=-1) / exact.norm(dim=-1)
        assert error[1, 5] < 0.01  # the bias alone
        assert 0.03 < error[error > 0.01].mean() < 0.04
    assert not WeightOnlyLinear(nn.Linear(20, 32), "float8-matmul").multiplies_in_float8  # widened instead


@pytest.mark.parametrize("weights", ["int8", "float8", "float8-matmul"])
def test_a_row_of_zeros_and_one_of_huge_numbers_survive(weights):
    linear = nn.Linear(4, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [3e38, -3e38, 0, 1e38]]))
    widened = WeightOnlyLinear(linear, weights).weight
    assert torch.equal(widened[0], torch.zeros(4))
    assert torch.allclose(widened[1], linear.weight[1], rtol=0.05, atol=1e36)


@pytest.mark.parametrize("weights", ["int8", "float8", "float8-matmul"])
def test_streamed_and_resident_coarse_weights_agree(weights):
    torch.manual_seed(1)
    resident, streamed = (arranged(plan(blocks, weights)) for blocks in ((), (0, 1)))
    for of_one, of_other in zip(resident.blocks, streamed.blocks):
        for name in ("self_attn.q", "cross_attn.k", "cam_encoder"):
            layer = of_one.get_submodule(name)
            features = torch.randn(1, 5, layer.stored.shape[1])
            assert isinstance(layer, WeightOnlyLinear)
            assert torch.equal(layer(features), of_other.get_submodule(name)(features))


def test_a_chunk_of_coarse_weights_stays_near(resident, walk):
    coarse = walked(replace(resident, denoiser=arranged(plan((0, 1), "int8"))))
    assert not torch.equal(coarse.video, walk.video)
    assert (coarse.latents - walk.latents).square().mean().sqrt() < 0.05 * walk.latents.std()


class OneDevice(TorchDispatchMode):
    """Fails where an operation meets tensors of two devices; on torch's meta device many would not."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.dim()]
        if "copy" not in str(operation):
            assert len({tensor.device for tensor in tensors}) < 2, operation
        return operation(*args, **(kwargs or {}))


def test_encoders_that_visit_a_device_compute_there_and_nowhere_else(monkeypatch):
    monkeypatch.setattr("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *_: False)  # reads values
    text, image, meta = tiny_umt5(), tiny_clip(), torch.device("meta")
    let_visit(text, meta)
    let_visit(image, meta)
    words = {"input_ids": torch.zeros(1, 4, dtype=torch.long), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with OneDevice():
        assert text(**words).last_hidden_state.is_meta
        assert image(pixel_values=torch.zeros(1, 3, 28, 28, device=meta)).last_hidden_state.is_meta
    assert not text.get_input_embeddings().weight.is_meta


def test_the_depth_network_that_visits_a_device_computes_there(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no meta device
    network, meta = DepthAnything3(TINY).eval(), torch.device("meta")
    let_visit(network, meta)
    images, eye = torch.zeros(2, 3, 28, 28, device=meta), torch.eye(4, device=meta).expand(2, 4, 4)
    with OneDevice():
        assert network(images, eye, eye[:, :3, :3]).depth.is_meta
        assert network.metric(images)[0].is_meta


def test_a_visitor_is_at_home_again_after_an_error():
    layer = nn.Linear(2, 2)
    let_visit(layer, CPU)
    home = layer.weight
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 3))
    assert layer.weight is home


@pytest.fixture(scope="module")
def published():
    return lyra2_footprint(480, 832, guidance=5.0)


def test_the_published_network_is_counted_in_full(published):
    blocks = published.blocks * (published.step + published.once)
    assert 34.0 < (blocks + published.rest) / GB < 34.2  # 17.03 billion weights
    assert 11.3 < published.text / GB < 11.4
    assert 2.9 < published.streams / GB < 3.1  # what a chunk's streams took on disk


@pytest.mark.parametrize(
    ("vram", "streamed", "visiting"), [(141, 0, False), (80, 0, False), (48, 0, True), (24, 28, True), (16, 38, True)]
)
def test_plans_for_the_published_network(published, vram, streamed, visiting):
    chosen = choose_plan(published, vram * GB, 64 * GB)
    assert (len(chosen.streamed), chosen.visiting, chosen.weights) == (streamed, visiting, "bfloat16")
    assert chosen.peak <= vram * GB
    assert len(set(chosen.streamed)) == streamed
    assert f"{vram}.0 GB to use" in chosen.described()
    assert ("travel" in chosen.described()) == (streamed > 0)


def test_a_machine_with_little_memory_gets_coarser_weights(published):
    assert choose_plan(published, 24 * GB, 24 * GB).weights == "int8"
    assert choose_plan(published, 24 * GB, 64 * GB, "float8").weights == "float8"


def test_what_cannot_fit_is_said_with_what_is_wanted(published):
    with pytest.raises(PlanError, match=r"8\.0 GB of GPU memory are too few.*at least 12\.\d GB are wanted.*--size"):
        choose_plan(published, 8 * GB, 64 * GB)
    with pytest.raises(PlanError, match=r"14\.2 GB of weights wait in host memory.*this machine has 8\.0 GB"):
        choose_plan(published, 16 * GB, 8 * GB)
    with pytest.raises(PlanError, match="float8"):
        choose_plan(published, 16 * GB, 8 * GB, "fp4")


def test_smaller_frames_need_less(published):
    small = lyra2_footprint(240, 416, guidance=1.0)
    assert small.sampling < published.sampling / 3
    assert choose_plan(small, 8 * GB, 64 * GB).weights == "bfloat16"


def test_branches_that_run_together_want_more():
    alone, together = (lyra2_footprint(480, 832, together, guidance=5.0).sampling for together in (False, True))
    assert 1.7 * alone < together < 2.1 * alone
    assert lyra2_footprint(480, 832, True, guidance=1.0) == lyra2_footprint(480, 832, guidance=1.0)


def test_compiled_blocks_stream_too():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4).requires_grad_(False) for _ in range(4)]
    features = torch.randn(2, 4)
    wanted = [layer(features) for layer in layers]
    WeightStream(([layer] for layer in layers), Copies(CPU))
    blocks = [nn.Sequential(layer) for layer in layers]
    for block in blocks:
        block.compile(backend="eager")
    for _ in range(3):
        assert all(torch.equal(block(features), right) for block, right in zip(blocks, wanted))


def test_every_linear_layer_of_a_block_is_in_one_group():
    block = tiny_denoiser().blocks[0]
    layers = [layer for group in block_layers(block) for layer in group]
    assert {id(layer) for layer in layers} == {id(part) for part in block.modules() if isinstance(part, nn.Linear)}
    assert len(layers) == len(set(layers)) == 15
