"""The optional gsplat: what it is called with, and on a GPU that its pictures are ours."""

import inspect

import pytest
import torch

from photowalk.geometry.cameras import Cameras
from photowalk.geometry.motions import rotation_from_quaternion
from photowalk.kernels import gsplat_adapter
from photowalk.kernels.project_gaussians import LOW_PASS, NEAR
from photowalk.scene.render import render, render_picture
from photowalk.scene.types import Splats


def some_splats(count=200):
    random = torch.Generator().manual_seed(0)
    means = torch.randn(count, 3, generator=random) + torch.tensor([0, 0, 5.0])
    scales = 0.02 + 0.1 * torch.rand(count, 3, generator=random)
    rotations = torch.nn.functional.normalize(torch.randn(count, 4, generator=random), dim=-1)
    colours = torch.randn(count, 4, 3, generator=random) * 0.3
    return Splats(means, scales, rotations, torch.rand(count, generator=random), colours)


def call():
    splats, camera = some_splats(), Cameras.from_fov(torch.eye(4), 60.0, 40, 60)
    axes = rotation_from_quaternion(splats.rotations) * splats.scales[:, None, :]
    return (
        splats,
        camera,
        gsplat_adapter.arguments(
            splats.means,
            axes,
            splats.opacities,
            splats.colours[:, 0],
            camera.camera_from_world,
            camera.intrinsics,
            40,
            60,
        ),
    )


def test_gsplat_is_told_what_our_rasteriser_takes():
    splats, camera, given = call()
    rotations = rotation_from_quaternion(splats.rotations)
    covariances = rotations @ torch.diag_embed(splats.scales**2) @ rotations.mT
    assert torch.allclose(given["covars"], covariances, atol=1e-6)
    assert (given["eps2d"], given["near_plane"], given["width"], given["height"]) == (LOW_PASS, NEAR, 60, 40)
    assert torch.equal(given["viewmats"][0], camera.camera_from_world)
    assert torch.equal(given["Ks"][0], camera.intrinsics)


def test_gsplat_takes_these_arguments():
    gsplat = pytest.importorskip("gsplat")
    inspect.signature(gsplat.rasterization).bind(**call()[2])


def test_without_a_gpu_pictures_are_our_own():
    splats, camera, _ = call()
    assert not gsplat_adapter.usable(splats.means)
    assert torch.equal(render_picture(splats, camera), render(splats, camera).image)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat renders on CUDA only")
def test_pictures_and_gradients_of_gsplat_are_ours():
    pytest.importorskip("gsplat")
    splats, camera = some_splats().to("cuda"), Cameras.from_fov(torch.eye(4), 60.0, 40, 60)
    splats.means.requires_grad_()
    pictures = [make(splats, camera) for make in (render_picture, lambda s, c: render(s, c).image)]
    assert torch.allclose(*pictures, atol=2e-3)
    gradients = [torch.autograd.grad(picture.square().sum(), splats.means)[0] for picture in pictures]
    assert torch.allclose(*gradients, atol=1e-3 * float(gradients[1].abs().max()))
