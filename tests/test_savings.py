"""Work that is saved changes no number: each saving is turned off and must do more for the same result."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_world_transformer import small_conditioning, small_network, small_noise
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from photowalk.cli import main
from photowalk.diffusion.guidance import guided
from photowalk.geometry.cameras import Cameras
from photowalk.geometry.paths import forward
from photowalk.models.lora import add_lora, merge_lora, merged_and_beside, read_lora
from photowalk.models.protocols import StreamState
from photowalk.models.savings import ALL_SAVINGS, NAMES, Savings
from photowalk.scene import warping
from photowalk.world.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32, "a test")


def test_names_are_known_or_refused():
    assert Savings.without([]) == ALL_SAVINGS
    assert [name for name, saved in vars(Savings.without(["needed_rays"])).items() if not saved] == ["needed_rays"]
    with pytest.raises(ValueError, match=r"no saving 'needed_ray'; known are correspondence_once, .*primed_once"):
        Savings.without(["needed_ray"])


def test_the_command_line_refuses_an_unknown_one(tmp_path, capsys):
    call = ["generate", str(tmp_path / "photo.png"), "-o", str(tmp_path / "world"), "--without-saving", "work"]
    assert main(call) == 2
    assert "there is no saving 'work'" in capsys.readouterr().err
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("name", ["correspondence_once", "texts_once", "new_tokens_only"])
def test_a_pass_does_more_for_the_same_velocity(name):
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    other = replace(conditioning, text=-conditioning.text)

    def velocities(savings: Savings) -> tuple[torch.Tensor, torch.Tensor, int]:
        prepared = network.prepare(conditioning, savings=savings)
        opposite = network.prepare(other, like=prepared, savings=savings)
        with FlopCounterMode(display=False) as counter:
            towards = network(noisy, timestep, prepared)
        return towards, network(noisy, timestep, opposite), counter.get_total_flops()

    with torch.no_grad():
        towards, away, work = velocities(ALL_SAVINGS)
        unsaved_towards, unsaved_away, more = velocities(Savings.without([name]))
    torch.testing.assert_close(unsaved_towards, towards, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(unsaved_away, away, atol=1e-6, rtol=1e-5)
    assert (towards - away).abs().max() > 1e-4
    assert more > 1.01 * work


def test_branches_together_give_the_velocity_of_branches_apart():
    network, conditioning = small_network(), small_conditioning(batch=1)
    noisy, timestep = small_noise(conditioning)
    negative = replace(conditioning, text=torch.zeros_like(conditioning.text))
    with torch.no_grad():
        apart = guided(network, conditioning, negative, 5.0)(noisy, timestep)
        together = guided(network, conditioning, negative, 5.0, together=True)(noisy, timestep)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_compiled_blocks_give_the_same_velocity():
    network, conditioning = small_network(), small_conditioning(batch=1)
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        plain = network(noisy, timestep, conditioning)
        for block in network.blocks:
            block.compile()
        torch.testing.assert_close(network(noisy, timestep, conditioning), plain, atol=1e-5, rtol=1e-5)


def test_loras_beside_layers_do_as_merged_ones():
    torch.manual_seed(3)
    weights = small_network().state_dict()
    layers = ["blocks.0.self_attn.q", "blocks.1.ffn.2", "blocks.1.buffer_encoder.0", "head.head", "time_embedding.0"]
    tensors = {}
    for layer in layers:
        rows, columns = weights[f"{layer}.weight"].shape
        tensors[f"{layer}.lora_A.weight"] = torch.randn(2, columns) / columns**0.5
        tensors[f"{layer}.lora_B.weight"] = torch.randn(rows, 2)
    tensors |= {"blocks.1.ffn.2.alpha": torch.tensor(1.0), "blocks.0.self_attn.q.diff_b": torch.randn(24)}
    conditioning = small_conditioning()
    noisy, timestep = small_noise(conditioning)
    plain, merged, beside = small_network(), small_network(), small_network()
    merge_lora(merged, tensors, 0.7)
    ways = merged_and_beside([(read_lora(beside, tensors), 0.7)], all_merged=False)
    assert [sorted(layers) for ((layers, _),) in ways] == [sorted(layers[3:]), sorted(layers[:3])]
    for (found, weight), way in zip((ways[0][0], ways[1][0]), ("merged", "beside")):
        for name, parts in found.items():
            if way == "beside":
                add_lora(beside.get_submodule(name), parts, weight)
            else:
                merge_lora(beside, {key: value for key, value in tensors.items() if key.startswith(name)}, weight)
    with torch.no_grad():
        velocities = [network(noisy, timestep, conditioning) for network in (plain, merged, beside)]
    torch.testing.assert_close(velocities[2], velocities[1], atol=1e-5, rtol=1e-5)
    assert (velocities[0] - velocities[1]).abs().max() > 1e-2
    assert torch.equal(*(network.get_parameter("blocks.1.ffn.2.weight") for network in (beside, plain)))


class CountingCodec:
    """The real codec, and how many samples it was given in each call."""

    def __init__(self, codec) -> None:
        self.spatial_factor, self.temporal_factor = codec.spatial_factor, codec.temporal_factor
        self.channels, self._codec = codec.channels, codec
        self.encoded: list[tuple[int, int]] = []

    def encode(self, video: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState]:
        self.encoded.append((video.shape[0], video.shape[2]))
        return self._codec.encode(video, state)

    def decode(self, latents: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState]:
        return self._codec.decode(latents, state)


@pytest.fixture(scope="module")
def started():
    """The published arrangement and a world of one photo."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tiny_published import HEIGHT, WIDTH, tiny_published

    generator = tiny_published(CPU)
    generator = replace(generator, codec=CountingCodec(generator.codec))
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    photo = torch.stack([rows, columns, (9 * rows * columns).sin() / 2 + 0.5])
    depth = torch.linspace(3, 2, HEIGHT)[:, None].expand(HEIGHT, WIDTH).contiguous()
    return generator, generator.start(photo, depth=depth, focal_px=40.0)


def ahead(start: Cameras, frames: int = 80) -> Cameras:
    return forward(start, frames + 1, distance=0.4)[1:]


def condition(started, name: str | None):
    generator, state = started
    savings = Savings.without([name] if name else [])
    generator.codec.encoded.clear()
    generator = replace(generator, placement=replace(CPU, savings=savings))
    with torch.inference_mode():
        return generator.condition(state, ahead(state.cameras[-1]), "", lambda progress: None)


@pytest.mark.parametrize("name", ["fused_splat", "needed_rays", "batched_encodes"])
def test_conditioning_is_the_same_with_more_work(name, started, monkeypatch):
    work = {"splats": 0, "rays": 0, "encodes": 0}

    def counted(of: str, function, amount):
        def run(*arguments, **named):
            work[of] += amount(*arguments)
            return function(*arguments, **named)

        return run

    splat_soft, ray_blocks = warping.splat_soft, warping.ray_blocks
    monkeypatch.setattr(
        warping, "splat_soft", counted("splats", splat_soft, lambda values, depth, steps, size: len(steps))
    )
    monkeypatch.setattr(warping, "ray_blocks", counted("rays", ray_blocks, lambda poses, *_: len(poses)))
    done = []
    for turned_off in (None, name):
        work.update(splats=0, rays=0)
        found = condition(started, turned_off)
        done.append((found, {**work, "encodes": len(started[0].codec.encoded)}))
    ((saved, saved_preview), less), ((spent, spent_preview), more) = done
    for field, value in vars(saved).items():
        torch.testing.assert_close(getattr(spent, field), value, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(spent_preview.video, saved_preview.video, atol=1e-6, rtol=1e-6)
    grown = {"fused_splat": "splats", "needed_rays": "rays", "batched_encodes": "encodes"}[name]
    assert [what for what in less if more[what] > less[what]] == [grown]


def test_the_photo_opens_the_streams_once(started):
    generator, state = started
    cameras = ahead(state.cameras[-1])
    videos = []
    for names in ([], ["primed_once"]):
        generator.codec.encoded.clear()
        made = replace(generator, placement=replace(CPU, savings=Savings.without(names)))
        videos.append(made.extend(state, cameras, "", seed=5).video)
        assert ((1, 97) in generator.codec.encoded) == bool(names)
        assert [call for call in generator.codec.encoded if call[1] == 1] == [(1, 1)]  # and fills all memory slots
    assert torch.equal(*videos)


def test_the_benchmark_counts_without_numbers_what_a_pass_does_with_them(capsys):
    script = runpy.run_path(str(Path(__file__).resolve().parent.parent / "benchmarks" / "denoiser_cpu.py"))
    config, grid = small_network().config, (4, 6)
    saved, unsaved = script["both"](script["counted"], config, grid)
    assert saved.once > unsaved.once
    assert saved.each < unsaved.each
    conditioning = script["conditioning"](config, *grid)
    network = small_network()
    with torch.no_grad():
        prepared = network.prepare(conditioning)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(torch.randn_like(conditioning.warp), torch.tensor([700.0]), prepared)
    assert saved.each == counter.get_total_flops()
    clocks = script["timed"](config, grid, 1)
    assert clocks.keys() == {"time", "processor time"}
    assert min(cost.each for costs in clocks.values() for cost in costs) > 0
    assert "largest difference" in capsys.readouterr().out


def test_each_saving_is_tested():
    tested = {"correspondence_once", "texts_once", "new_tokens_only", "merged_loras", "fused_splat", "needed_rays"}
    assert tested | {"batched_encodes", "primed_once"} == set(NAMES)
