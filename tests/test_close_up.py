"""What a walk shows of the photo from nearer than it was taken: pixels that the photo has and its frame has not."""

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_preset

from photowalk.geometry import paths
from photowalk.geometry.cameras import Cameras
from photowalk.kernels.sliding import lowest_around
from photowalk.scene.close_up import CloseUp, composite_with
from photowalk.scene.edges import finer_depth, jumps
from photowalk.scene.types import View
from photowalk.scene.warping import composite
from photowalk.world.placement import choose_placement

HEIGHT, WIDTH, DEPTH = 48, 64, 2.0
CAMERA = Cameras.from_fov(torch.eye(4), 60.0, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def close_up():
    """A picture with detail that half as many pixels cannot show."""
    coarse = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, scale_factor=2, mode="bicubic").clamp(0, 1)[0]


@pytest.fixture(scope="module")
def photo(close_up):
    """A wall that stands straight before the camera."""
    return View(F.avg_pool2d(close_up[None], 2)[0], torch.full((HEIGHT, WIDTH), DEPTH), CAMERA, 0)


def nearer(distance):
    return paths.forward(CAMERA, 2, distance=distance)[1:]


@pytest.mark.parametrize("times", [2, 4])
def test_where_a_wall_is_so_many_times_larger_it_shows_the_close_ups_own_pixels(times):
    coarse = torch.rand(1, 3, times * HEIGHT // 2, times * WIDTH // 2)
    close_up = F.interpolate(coarse, scale_factor=2, mode="bicubic").clamp(0, 1)[0]
    photo = View(F.avg_pool2d(close_up[None], times)[0], torch.full((HEIGHT, WIDTH), DEPTH), CAMERA, 0)
    targets = nearer(DEPTH * (1 - 1 / times))
    top, left = (times - 1) * HEIGHT // 2, (times - 1) * WIDTH // 2
    middle = close_up[:, top : top + HEIGHT, left : left + WIDTH]
    sharp = composite_with(CloseUp(photo, close_up), [photo], targets).video[0]
    torch.testing.assert_close(sharp, middle, atol=2e-3, rtol=0)
    assert (composite([photo], targets).video[0] - middle).abs().mean() > 0.02  # the frame alone has lost that


def test_of_more_pixels_than_are_asked_for_none_is_passed_over(photo, close_up):
    """A close-up of twice the pixels adds nothing at half the distance, not even noise."""
    finer = close_up.repeat_interleave(2, 1).repeat_interleave(2, 2)
    finer = finer + 0.1 * (torch.arange(finer.shape[-1]) % 2 - 0.5)  # stripes that vanish in the mean of two pixels
    targets = nearer(DEPTH / 2)
    expected, drawn = (composite_with(CloseUp(photo, picture), [photo], targets).video for picture in (close_up, finer))
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.mark.parametrize("distance", [0.0, -1.0])
def test_from_where_it_was_taken_and_from_farther_away_the_photo_stays_as_it_is(photo, close_up, distance):
    targets = paths.forward(CAMERA, 2, distance=distance)[1:]
    assert same(composite_with(CloseUp(photo, close_up), [photo], targets), composite([photo], targets))


def test_each_frame_is_as_near_as_its_own_camera(photo, close_up):
    """Frames are drawn alone as they are drawn in a walk, with the close-up or without."""
    targets = paths.forward(CAMERA, 9, distance=DEPTH / 2)
    walk = composite_with(CloseUp(photo, close_up), [photo], targets)
    for frame in (0, 1, 4, 8):
        alone = composite_with(CloseUp(photo, close_up), [photo], targets[[frame]])
        assert torch.equal(walk.video[frame], alone.video[0])
        assert torch.equal(walk.depth[frame], alone.depth[0])


def test_outlines_follow_the_finer_picture():
    """A disc in front of a wall, from half its distance: what is taken for it are the right pixels, no stairs."""
    rows, columns = torch.meshgrid(torch.arange(2 * HEIGHT), torch.arange(2 * WIDTH), indexing="ij")
    disc = (rows - HEIGHT + 0.5).square() + (columns - WIDTH + 0.5).square() < 14.3**2
    picture = torch.where(
        disc, torch.tensor([0.9, 0.6, 0.2])[:, None, None], torch.tensor([0.1, 0.2, 0.5])[:, None, None]
    )
    coarse = F.avg_pool2d(disc[None].float(), 2)[0] >= 0.5
    photo = View(F.avg_pool2d(picture[None], 2)[0], torch.where(coarse, DEPTH, 10 * DEPTH), CAMERA, 0)
    targets = nearer(DEPTH / 2)
    wrong = {}
    for name, seen in (
        ("plain", composite([photo], targets)),
        ("closer", composite_with(CloseUp(photo, picture), [photo], targets)),
    ):
        wrong[name] = ((seen.depth[0] < DEPTH) & (seen.depth[0] > 0)) != disc[
            HEIGHT // 2 : -HEIGHT // 2, WIDTH // 2 : -WIDTH // 2
        ]
    assert wrong["closer"].sum() < 0.5 * wrong["plain"].sum()


def test_outlines_are_not_jagged():
    """An upright edge that crosses the rows at a slant: each row's mean is what a camera would see, on average."""
    rows, columns = torch.meshgrid(torch.arange(2 * HEIGHT), torch.arange(2 * WIDTH), indexing="ij")
    near = (columns - WIDTH < 0.31 * (rows - HEIGHT)).float()
    photo = View(
        F.avg_pool2d(near.expand(1, 3, -1, -1), 2)[0],
        torch.where(F.avg_pool2d(near[None], 2)[0] >= 0.5, DEPTH, 10 * DEPTH),
        CAMERA,
        0,
    )
    seen = composite_with(CloseUp(photo, near.expand(3, -1, -1)), [photo], nearer(DEPTH / 2))
    between = (seen.video[0, 0] > 0.1) & (seen.video[0, 0] < 0.9)
    assert between.sum() > 0.8 * HEIGHT  # hard edges have no pixels between black and white but by chance
    assert ((seen.video[0, 0] - seen.video[0, 0].round()).abs().sum(1) < 1.5).all()  # and no row is smeared


def test_ground_is_not_taken_for_an_outline():
    """A floor slopes ever more steeply towards its horizon, and jumps nowhere."""
    rays = CAMERA.rays()[1]
    floor = torch.where(rays[..., 1] > 0, 1 / (rays[..., 1] / rays[..., 2]).clamp_min(1e-6), torch.inf)
    picture = torch.rand(3, 2 * HEIGHT, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    photo = View(F.avg_pool2d(picture[None], 2)[0], floor, CAMERA, 0)
    seen = composite_with(CloseUp(photo, picture), [photo], nearer(1.0))
    outlines = jumps(torch.where(seen.depth > 0, 1 / seen.depth, 0), 0.05) & lowest_around(seen.known, 1)
    assert not outlines[0, HEIGHT // 2 + 2 :].any()


@pytest.mark.parametrize("behind", [20.0, torch.inf])
@pytest.mark.parametrize("across", [0, 1])
def test_finer_depth_has_no_depths_of_its_own_at_edges(behind, across):
    """Poles of one and two pixels and a gap of one, beside something unknown, under a picture that shows no more."""
    depth = torch.full((24, 32), behind)
    depth[:, [6, 14, 15, 22]] = 2.0
    depth[:, 24:] = 2.0
    depth[:, 28] = behind
    depth[10:12, 20] = 0.0  # unknown
    depth = depth.T.contiguous() if across else depth
    picture = (0.2 + 0.6 * (depth == 2.0).float()).expand(3, -1, -1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    finer = finer_depth(depth, picture)
    assert torch.equal(finer, depth.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_what_was_pictured_from_nearer_comes_before_the_photo(photo, close_up):
    posed = View(torch.zeros(3, HEIGHT, WIDTH), torch.full((HEIGHT, WIDTH), DEPTH / 2), nearer(DEPTH / 2)[0], -1)
    seen = composite_with(CloseUp(photo, close_up), [posed, photo], nearer(DEPTH / 2))
    assert (seen.video == 0).all()


def test_a_longer_lens_is_as_good_as_coming_nearer_and_shows_the_sky_too(photo, close_up):
    sky = View(photo.image, torch.full((HEIGHT, WIDTH), torch.inf), CAMERA, 0)
    lens = torch.tensor([2.0, 2.0, 1.0])[:, None] * torch.eye(3)
    about_middle = CAMERA.intrinsics.clone()
    about_middle[:2, :2] = (lens @ CAMERA.intrinsics)[:2, :2]
    long = Cameras(CAMERA.camera_from_world[None], about_middle[None], HEIGHT, WIDTH)
    middle = close_up[:, HEIGHT // 2 : -HEIGHT // 2, WIDTH // 2 : -WIDTH // 2]
    for view in (photo, sky):
        sharp = composite_with(CloseUp(view, close_up), [view], long).video[0]
        torch.testing.assert_close(sharp, middle, atol=2e-3, rtol=0)


def test_what_another_view_shows_stays_as_it_is(photo, close_up):
    near = View(torch.zeros(3, HEIGHT, WIDTH), torch.full((HEIGHT, WIDTH), DEPTH - 0.5), CAMERA, 1)
    near.depth[:, : WIDTH // 2] = 0  # it saw the right half alone, in black
    targets = nearer(0.8)
    plain, sharp = composite([photo, near], targets), composite_with(CloseUp(photo, close_up), [photo, near], targets)
    black = sharp.source == 1
    assert 0.2 < black.float().mean() < 0.9
    inside = lowest_around(black, 1)  # its outline is soft
    assert (sharp.video.movedim(1, -1)[inside] == 0).all()
    assert (black == (plain.source == 1)).float().mean() > 0.97  # but for its edge
    assert (sharp.video != plain.video).any()


def test_a_chunk_is_drawn_from_the_close_up(close_up):
    """The walk's warp, and with it what is drawn, has detail that it does not have without."""
    generator = tiny_preset().build(choose_placement("cpu"))
    height, width = 64, 96
    larger = F.interpolate(close_up[None], size=(2 * height, 2 * width), mode="bicubic")[0].clamp(0, 1)
    photo, depth = F.avg_pool2d(larger[None], 2)[0], torch.full((height, width), DEPTH)
    drawn = {}
    for name, more in (("plain", None), ("closer", larger)):
        state = generator.start(photo, focal_px=80.0, depth=depth, close_up=more)
        cameras = paths.forward(state.cameras[-1], 17, distance=DEPTH / 2)[1:]
        _, preview = generator.condition(state, cameras, "", lambda progress: None)
        drawn[name] = preview.video[-1]
    middle = larger[:, height // 2 : -height // 2, width // 2 : -width // 2]
    errors = {name: (video - middle).abs().mean() for name, video in drawn.items()}
    assert errors["closer"] < 0.3 * errors["plain"]


def test_a_close_up_of_another_shape_is_refused():
    generator = tiny_preset().build(choose_placement("cpu"))
    with pytest.raises(ValueError, match=r"close-up of a photo of 64x96 wants 2, 4, ... times .* got 128x96"):
        generator.start(torch.rand(3, 64, 96), focal_px=80.0, close_up=torch.rand(3, 128, 96))
