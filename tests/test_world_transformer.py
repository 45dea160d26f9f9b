"""The world transformer: against a plain transcription, the published network, and its own fast paths."""

import math
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from photowalk.diffusion.guidance import guided
from photowalk.models.attention import attend_in_blocks
from photowalk.models.conditioning import Conditioning
from photowalk.models.history_layout import HistoryLayout
from photowalk.models.lora import merge_lora
from photowalk.models.rope import packed_angles
from photowalk.models.world_transformer import NetworkInputs, WorldTransformer

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED_LAYOUT = HistoryLayout.parse("f1k1f4s2f1s1f16k4f2k2f1k1_g20")
SMALL = WorldTransformer.Config(
    width=24,
    heads=2,
    depth=2,
    ffn=40,
    layout=HistoryLayout.parse("f1k1f2s2f1s1f5k4f2k2f1k1_g2"),
    channels=3,
    text_dim=7,
    text_length=6,
    image_dim=10,
    condition_side=2,
    squeeze=5,
    freq_dim=16,
)


def small_network(**changes) -> WorldTransformer:
    torch.manual_seed(0)
    network = WorldTransformer(replace(SMALL, **changes))
    for name, parameter in network.named_parameters():
        if name.startswith("head.") or parameter.dim() == 1:  # zeros and ones would hide mistakes
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.2)
    return network


def small_conditioning(batch: int = 2, rows: int = 6, columns: int = 10, config=SMALL) -> Conditioning:
    torch.manual_seed(1)
    layout, block, grid = config.layout, config.condition_side**2, (rows, columns)
    return Conditioning(
        history=torch.randn(batch, config.channels, layout.history_frames, *grid),
        warp=torch.randn(batch, config.channels, layout.new_frames, *grid),
        known=torch.rand(batch, 4, layout.new_frames, *grid),
        rays=torch.randn(batch, 6 * block, layout.frames, *grid),
        correspondence=torch.rand(batch, layout.space_frames * 4 * block, layout.new_frames, *grid) * 2 - 1,
        text=torch.randn(batch, 4, config.text_dim),
        image=torch.randn(batch, 3, config.image_dim),
    )


def small_noise(conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn_like(conditioning.warp), torch.rand(len(conditioning.warp)) * 1000


# --- a plain transcription: everything built, nothing cached, one sample at a time ---------------------------------


def plain_network(network: WorldTransformer, noisy, timestep, conditioning) -> torch.Tensor:
    samples = [
        _plain_sample(network, noisy[i], timestep[i], Conditioning(*(v[i] for v in vars(conditioning).values())))
        for i in range(len(noisy))
    ]
    return torch.stack(samples)


def _plain_sample(network, noisy, timestep, known) -> torch.Tensor:
    weights, config = dict(network.named_parameters()), network.config
    layout, width = config.layout, config.width

    def linear(name, values):
        return F.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    mask = torch.cat([torch.ones(4, *known.history.shape[1:]), known.known], dim=1)
    frames = torch.cat([known.history, noisy], 1), mask, torch.cat([known.history, known.warp], 1)
    video = torch.cat(frames)
    names = [f"clean_patch_embeddings.{i}" for i in range(len(layout.slots))] + ["patch_embedding"]
    segments = layout.segments(noisy.shape[-2] // 2, noisy.shape[-1] // 2)
    x = torch.cat([linear(name, _blocks_of(video, s, (1, 2, 2), merge=True)) for name, s in zip(names, segments)])
    rays = torch.cat([_blocks_of(known.rays, s, (1, 2, 2), merge=False) for s in segments])
    shown = torch.zeros(len(known.correspondence), layout.history_frames, *noisy.shape[-2:])
    shown = torch.cat([shown, known.correspondence], dim=1)
    slot = 0
    for s in segments:
        for frame in s.frames if s.kind == "space" else ():
            shown[:, frame] = _plain_slot(slot, layout.space_frames, config.condition_side, *noisy.shape[-2:])
            slot += 1
    shown = torch.cat([_shown_tokens(shown, s) for s in segments])
    shown = torch.cat(
        [wave(2**i * math.pi * shown) for i in range(config.waves) for wave in (torch.sin, torch.cos)], -1
    )
    valid = torch.cat([torch.full((len(s.tokens), 1), float(s.kind != "time")) for s in segments])

    half = config.freq_dim // 2
    angles = timestep.double() * torch.tensor([10000.0 ** (-i / half) for i in range(half)], dtype=torch.float64)
    time = torch.cat([angles.cos(), angles.sin()]).float()
    time = linear("time_embedding.2", F.silu(linear("time_embedding.0", time)))
    modulation = linear("time_projection.1", F.silu(time)).view(6, width)
    text = F.pad(known.text, (0, 0, 0, config.text_length - len(known.text)))
    text = linear("text_embedding.2", F.gelu(linear("text_embedding.0", text), approximate="tanh"))
    picture = F.layer_norm(
        known.image, known.image.shape[-1:], weights["img_emb.proj.0.weight"], weights["img_emb.proj.0.bias"]
    )
    picture = linear("img_emb.proj.3", F.gelu(linear("img_emb.proj.1", picture)))
    picture = F.layer_norm(picture, (width,), weights["img_emb.proj.4.weight"], weights["img_emb.proj.4.bias"])
    rope = packed_angles(layout, width // config.heads, noisy.shape[-2] // 2, noisy.shape[-1] // 2)

    def rms(name, values):
        return values / (values.square().mean(-1, keepdim=True) + config.eps).sqrt() * weights[name]

    def norm(values):
        return F.layer_norm(values, (width,), eps=config.eps)

    def attend(queries, keys, values):
        heads = []
        for q, k, v in zip(*(t.chunk(config.heads, -1) for t in (queries, keys, values))):
            heads.append(torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), -1) @ v)
        return torch.cat(heads, -1)

    def turn(values):
        pairs = values.view(len(values), config.heads, -1, 2)
        c, s = rope.cos()[:, None], rope.sin()[:, None]
        turned = [pairs[..., 0] * c - pairs[..., 1] * s, pairs[..., 0] * s + pairs[..., 1] * c]
        return torch.stack(turned, -1).view_as(values)

    for i in range(config.depth):
        b = f"blocks.{i}"
        m = weights[f"{b}.modulation"][0] + modulation
        a = norm(x) * (1 + m[1]) + m[0]
        bias = linear(f"{b}.cam_encoder", rays)
        bias = bias + valid * linear(f"{b}.buffer_encoder.1", linear(f"{b}.buffer_encoder.0", shown))
        q = turn(rms(f"{b}.self_attn.norm_q.weight", linear(f"{b}.self_attn.q", a + bias)))
        k = turn(rms(f"{b}.self_attn.norm_k.weight", linear(f"{b}.self_attn.k", a + bias)))
        x = x + m[2] * linear(f"{b}.self_attn.o", attend(q, k, linear(f"{b}.self_attn.v", a)))
        a = F.layer_norm(x, (width,), weights[f"{b}.norm3.weight"], weights[f"{b}.norm3.bias"], config.eps)
        c = f"{b}.cross_attn"
        q = rms(f"{c}.norm_q.weight", linear(f"{c}.q", a))
        seen = attend(q, rms(f"{c}.norm_k.weight", linear(f"{c}.k", text)), linear(f"{c}.v", text))
        seen = seen + attend(
            q, rms(f"{c}.norm_k_img.weight", linear(f"{c}.k_img", picture)), linear(f"{c}.v_img", picture)
        )
        x = x + linear(f"{c}.o", seen)
        a = norm(x) * (1 + m[4]) + m[3]
        x = x + m[5] * linear(f"{b}.ffn.2", F.gelu(linear(f"{b}.ffn.0", a), approximate="tanh"))
    shift, scale = weights["head.modulation"][0] + time
    values = linear("head.head", norm(x) * (1 + scale) + shift)[segments[-1].tokens.start :]
    out = torch.zeros_like(noisy)
    rows, columns = noisy.shape[-2] // 2, noisy.shape[-1] // 2
    for n, value in enumerate(values):
        t, row, column = n // (rows * columns), n // columns % rows, n % columns
        out[:, t, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = value.view(2, 2, -1).permute(2, 0, 1)
    return out


def _blocks_of(video, segment, patch, *, merge: bool) -> torch.Tensor:
    """Tokens of one segment, cut one by one. merge: the token holds all latents that it covers, else their average
    over base tokens."""
    frames = video[:, segment.frames.start : segment.frames.stop]
    ft, fh, fw = segment.factors
    rows, columns = (-(-frames.shape[2] // 2), -(-frames.shape[3] // 2))
    tokens = []
    for t in range(0, frames.shape[1], ft):
        for row in range(0, rows, fh):
            for column in range(0, columns, fw):
                pieces = [
                    _take(frames, t + i, 2 * (row + j), 2 * (column + k), last_token=not merge)
                    for i in range(ft)
                    for j in range(fh)
                    for k in range(fw)
                ]
                grid = torch.stack(pieces).view(ft, fh, fw, -1, 2, 2)
                if merge:
                    tokens.append(grid.permute(3, 0, 1, 4, 2, 5).reshape(-1))
                else:
                    tokens.append(grid.mean((0, 1, 2)).reshape(-1))
    return torch.stack(tokens)


def _take(frames, t, row, column, *, last_token: bool) -> torch.Tensor:
    """A 2x2 piece [C, 2, 2]. Beyond the end the last token, or the last latent, is repeated."""
    height, width = frames.shape[2:]
    if last_token:
        row, column = min(row, height - 2), min(column, width - 2)
    rows = [min(row + i, height - 1) for i in range(2)]
    columns = [min(column + i, width - 1) for i in range(2)]
    return frames[:, min(t, frames.shape[1] - 1)][:, rows][:, :, columns]


def _shown_tokens(shown, segment) -> torch.Tensor:
    """Correspondence is averaged on the latent grid, then cut into 2x2 patches."""
    frames = shown[:, segment.frames.start : segment.frames.stop]
    ft, fh, fw = segment.factors
    t, rows, columns = (-(-size // factor) for size, factor in zip(frames.shape[1:], segment.factors))
    averaged = torch.empty(len(frames), t, rows, columns)
    for i in range(t):
        for row in range(rows):
            for column in range(columns):
                covered = [
                    _take(frames, i * ft + a, row * fh + b, column * fw + c, last_token=False)[:, 0, 0]
                    for a in range(ft)
                    for b in range(fh)
                    for c in range(fw)
                ]
                averaged[:, i, row, column] = torch.stack(covered).mean(0)
    plain = type(segment)(segment.kind, range(t), (1, 1, 1), segment.tokens)
    return _blocks_of(averaged, plain, (1, 2, 2), merge=True)


def _plain_slot(slot: int, slots: int, side: int, rows: int, columns: int) -> torch.Tensor:
    """A memory slot's own coordinates, [K*4*s*s, h, w]."""
    height, width = rows * side, columns * side
    channels = torch.empty(slots, 4, side, side, rows, columns)
    for row in range(height):
        for column in range(width):
            place = (row % side, column % side, row // side, column // side)
            channels[:, 0, *place] = 2 * column / (width - 1) - 1
            channels[:, 1, *place] = 2 * row / (height - 1) - 1
    channels[:, 2] = 2 * slot / (slots - 1) - 1
    channels[0, 3], channels[1:, 3] = -1, 1
    return channels.flatten(0, 3)


# --- tests ------------------------------------------------------------------------------------------------------------


def test_it_computes_what_the_plain_transcription_computes():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        expected = plain_network(network, noisy, timestep, conditioning)
        assert expected.std() > 0.1
        torch.testing.assert_close(network(noisy, timestep, conditioning), expected, atol=2e-5, rtol=1e-4)


def test_its_gradients_are_those_of_the_plain_transcription():
    network, conditioning = small_network(), small_conditioning(batch=1, rows=4, columns=6)
    noisy, timestep = small_noise(conditioning)
    gradients = []
    for run in (network, lambda *given: plain_network(network, *given)):
        network.zero_grad()
        run(noisy, timestep, conditioning).square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert gradient.abs().max() > 0, name


def test_the_published_network():
    """Weights and inputs drawn by the rule of the goldens; the output is the published implementation's."""
    config = WorldTransformer.Config(
        width=256,
        heads=2,
        depth=2,
        ffn=384,
        layout=PUBLISHED_LAYOUT,
        channels=16,
        text_dim=32,
        text_length=512,
        image_dim=1280,
        condition_side=8,
        squeeze=16,
    )
    network = WorldTransformer(config)
    network.load_state_dict({n: _golden_weight(n, tuple(v.shape)) for n, v in network.state_dict().items()})

    def draw(seed, *shape):
        return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))

    noisy, condition, seen = draw(1, 1, 16, 45, 8, 12), draw(2, 1, 16, 45, 8, 12), torch.ones(1, 4, 45, 8, 12)
    inputs = NetworkInputs(
        history=torch.cat([noisy, seen, condition], 1)[:, :, :25],
        new=torch.cat([seen, condition], 1)[:, :, 25:],
        rays=draw(3, 1, 384, 45, 8, 12),
        correspondence=draw(4, 1, 1280, 45, 8, 12).tanh()[:, :, [*range(1, 6), *range(25, 45)]],
        text=draw(5, 1, 512, 32),
        image=draw(6, 1, 257, 1280),
    )
    with torch.inference_mode():
        velocity = network(noisy[:, :, 25:], torch.tensor([737.0]), network.prepare_inputs(inputs))
    expected = load_file(GOLDEN / "world_transformer.safetensors")["out"]
    torch.testing.assert_close(velocity, expected, atol=1e-5, rtol=0)


def _golden_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    values = torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    if name.endswith("modulation"):
        return 0.1 * values
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith(".weight") else 0.1 * values


def test_names_and_shapes_of_the_published_weights():
    lines = [line.split("\t") for line in (GOLDEN / "keys14b.txt").read_text().splitlines()]
    wanted = {name: tuple(map(int, re.findall(r"\d+", shape))) for name, shape in lines}
    wanted = {name: shape for name, shape in wanted.items() if not name.startswith("accum_")}
    with torch.device("meta"):
        network = WorldTransformer(
            WorldTransformer.Config(
                width=5120,
                heads=40,
                depth=40,
                ffn=13824,
                layout=PUBLISHED_LAYOUT,
                channels=16,
                text_dim=4096,
                text_length=512,
                image_dim=1280,
                condition_side=8,
                squeeze=256,
            )
        )
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == wanted
    assert sum(parameter.numel() for parameter in network.parameters()) == 17_029_871_424


def test_preparing_first_gives_identical_numbers():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        assert torch.equal(
            network(noisy, timestep, network.prepare(conditioning)), network(noisy, timestep, conditioning)
        )


def test_another_text_reuses_the_rest_and_gives_identical_numbers():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    other = replace(conditioning, text=-conditioning.text)
    with torch.no_grad():
        first = network.prepare(conditioning)
        reused = network.prepare(other, like=first)
        assert reused.history is first.history
        assert reused.blocks[0].correspondence is first.blocks[0].correspondence
        assert torch.equal(network(noisy, timestep, reused), network(noisy, timestep, other))
        moved = replace(other, rays=other.rays.flip(0))
        assert network.prepare(moved, like=first).history is not first.history


def test_guidance_runs_the_transformer_on_both_texts():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    negative = replace(conditioning, text=torch.zeros_like(conditioning.text))
    with torch.no_grad():
        away, towards = network(noisy, timestep, negative), network(noisy, timestep, conditioning)
        velocity = guided(network, conditioning, negative, 5.0)(noisy, timestep)
    torch.testing.assert_close(velocity, away + 5 * (towards - away))


def test_samples_of_a_batch_do_not_see_each_other():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    alone = Conditioning(*(value[1:] for value in vars(conditioning).values()))
    with torch.no_grad():
        together = network(noisy, timestep, conditioning)[1:]
        torch.testing.assert_close(network(noisy[1:], timestep[1:], alone), together, atol=1e-5, rtol=1e-4)


def test_texts_are_padded_with_zeros():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    padded = replace(conditioning, text=F.pad(conditioning.text, (0, 0, 0, 2)))
    with torch.no_grad():
        assert torch.equal(network(noisy, timestep, padded), network(noisy, timestep, conditioning))


def test_every_input_matters():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        velocity = network(noisy, timestep, conditioning)
        for name, value in vars(conditioning).items():
            changed = network(noisy, timestep, replace(conditioning, **{name: value.flip(-1) / 2}))
            assert (changed - velocity).abs().max() > 1e-4, name
        assert (network(noisy, timestep / 2, conditioning) - velocity).abs().max() > 1e-4


def test_averaged_history_is_where_learned_merging_begins():
    learned, averaged = small_network(), small_network(learned_merging=False)
    averaged.load_state_dict(
        {n: v for n, v in learned.state_dict().items() if not n.startswith("clean_patch_embeddings")}, strict=False
    )
    for network in (learned, averaged):
        network.init_history_embeddings_from_base()
    history = torch.randn(1, 10, SMALL.layout.history_frames, 6, 10)
    with torch.no_grad():
        torch.testing.assert_close(
            averaged.embed_history(history), learned.embed_history(history), atol=1e-5, rtol=1e-4
        )
    count = sum(p.numel() for p in averaged.parameters())
    assert count < sum(p.numel() for p in learned.parameters())


def test_without_a_picture():
    network = small_network(image_dim=0)
    conditioning = replace(small_conditioning(), image=torch.zeros(2, 0, 0))
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        assert network(noisy, timestep, conditioning).isfinite().all()
    assert not any("img" in name for name in network.state_dict())


def test_before_training_it_predicts_no_velocity():
    conditioning = small_conditioning()
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        assert WorldTransformer(SMALL)(noisy, timestep, conditioning).abs().max() == 0


def test_predicting_a_correction_begins_with_the_warp_as_the_clean_estimate():
    network, conditioning = WorldTransformer(replace(SMALL, predicts="correction")), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    sigma = (timestep / 1000).view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        velocity = network(noisy, timestep, conditioning)
    torch.testing.assert_close(noisy - sigma * velocity, conditioning.warp, atol=1e-5, rtol=1e-5)


def test_attention_in_blocks_is_attention():
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, length, 16) for length in (519, 90, 90))  # not all at once
    exact = F.scaled_dot_product_attention(queries, keys, values)
    torch.testing.assert_close(attend_in_blocks(queries, keys, values), exact, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = attend_in_blocks(queries.bfloat16(), keys.bfloat16(), values.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).norm() < 0.02 * exact.norm()


def test_half_precision_stays_close():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    with torch.no_grad():
        exact = network(noisy, timestep, conditioning)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = network(noisy, timestep, conditioning)
        halved = network.bfloat16()(noisy, timestep, conditioning)
    for rough in (mixed, halved):
        assert rough.dtype == torch.float32
        assert (rough - exact).norm() < 0.03 * exact.norm()


def test_it_learns_under_autocast():
    network, conditioning = small_network(), small_conditioning()
    noisy, timestep = small_noise(conditioning)
    target = torch.randn_like(noisy)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.mse_loss(network(noisy, timestep, conditioning), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", ["history", "warp", "known", "rays", "correspondence"])
def test_a_wrong_shape_is_named(name):
    conditioning = small_conditioning()
    wrong = replace(conditioning, **{name: getattr(conditioning, name)[:, :-1]})
    with pytest.raises(ValueError, match=f"{name} wants shape"):
        small_network().prepare(wrong)


def test_long_texts_and_odd_grids_are_refused():
    conditioning = small_conditioning()
    with pytest.raises(ValueError, match="text of 7 tokens"):
        small_network().prepare(replace(conditioning, text=torch.zeros(2, 7, SMALL.text_dim)))
    with pytest.raises(ValueError, match="5x10"):
        small_network().prepare(small_conditioning(rows=5))
    with pytest.raises(ValueError, match="heads"):
        replace(SMALL, heads=5)
    with pytest.raises(ValueError, match="memory slot"):
        replace(SMALL, layout=HistoryLayout.parse("f1k1f4k2_g2"))


def test_merged_adaptations_add_their_product_whatever_the_key_style():
    network = small_network()
    before = network.blocks[1].self_attn.q.weight.detach().clone()
    down, up, alpha = torch.randn(3, 24), torch.randn(24, 3), torch.tensor(6.0)
    plain = {"lora_A.weight": down, "lora_B.weight": up, "alpha": alpha}
    styles = [
        {f"net.blocks.1.self_attn.q.{key}": value for key, value in plain.items()},
        {f"diffusion_model.blocks.1.self_attn.q.{key}": value for key, value in plain.items()},
        {
            "lora_unet_blocks_1_self_attn_q.lora_down.weight": down,
            "lora_unet_blocks_1_self_attn_q.lora_up.weight": up,
            "lora_unet_blocks_1_self_attn_q.alpha": alpha,
        },
    ]
    for count, tensors in enumerate(styles, start=1):
        merge_lora(network, tensors, 0.4)
        expected = before + count * 0.4 * 2 * (up @ down)
        torch.testing.assert_close(network.blocks[1].self_attn.q.weight, expected, atol=1e-5, rtol=1e-5)


def test_bias_changes_count_unless_they_are_flat():
    network = small_network()
    before = network.blocks[0].ffn[0].bias.detach().clone()
    change = torch.linspace(0, 1, 40)
    merge_lora(network, {"blocks.0.ffn.0.diff_b": change, "blocks.0.ffn.2.diff_b": torch.full((24,), 0.5)}, 0.5)
    torch.testing.assert_close(network.blocks[0].ffn[0].bias, before + 0.5 * change)
    torch.testing.assert_close(network.state_dict()["blocks.0.ffn.2.bias"], small_network().blocks[0].ffn[2].bias)


def test_an_adaptation_that_does_not_fit_changes_nothing():
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    good = {
        "blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 24),
        "blocks.0.self_attn.q.lora_B.weight": torch.ones(24, 2),
    }
    for bad, message in (
        ({"blocks.9.self_attn.q.lora_A.weight": torch.ones(2, 24)}, "no linear layer"),
        ({"blocks.0.self_attn.q.weight": torch.ones(24, 24)}, "no linear layer"),
        ({"blocks.1.self_attn.q.lora_A.weight": torch.ones(2, 24)}, "incomplete"),
        (
            {
                "blocks.1.cam_encoder.lora_A.weight": torch.ones(2, 9),
                "blocks.1.cam_encoder.lora_B.weight": torch.ones(24, 2),
            },
            "fit",
        ),
        ({"blocks.1.cam_encoder.diff_b": torch.arange(24.0)}, "no bias"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_lora(network, good | bad, 1.0)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
