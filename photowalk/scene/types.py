"""What a world is made of: one posed picture, a posed video, splats, a mesh. Plain values, no methods that compute."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from photowalk.geometry.cameras import Cameras


@dataclass(frozen=True)
class View:
    """One posed RGB-D picture."""

    image: Tensor  # [3, H, W] in [0, 1]
    depth: Tensor  # [H, W] along +Z, 0 = unknown, inf = sky
    camera: Cameras  # []
    frame: int  # index in the walk

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.image.shape != (3, *size) or self.depth.shape != size or self.camera.shape != ():
            raise ValueError(
                f"a view wants image [3, H, W], depth [H, W] and one camera of the same size, got "
                f"{tuple(self.image.shape)}, {tuple(self.depth.shape)} and {tuple(self.camera.shape)} cameras of {size}"
            )


@dataclass(frozen=True)
class Clip:
    """A posed video with depth where it is known."""

    video: Tensor  # [F, 3, H, W] in [0, 1]
    cameras: Cameras  # [F]
    depth: Tensor | None = None  # [F, H, W] along +Z, 0 = unknown (whole frames may be), inf = sky
    prompt: str = ""
    captions: tuple[str, ...] = ()  # [F] what is told from each frame on, where that changes on the way; may be empty

    def __post_init__(self) -> None:
        frames, _, height, width = self.video.shape
        if self.cameras.shape != (frames,) or (self.cameras.height, self.cameras.width) != (height, width):
            raise ValueError(
                f"a clip of {frames} frames of {height}x{width} wants as many cameras of that size, "
                f"got {tuple(self.cameras.shape)} of {self.cameras.height}x{self.cameras.width}"
            )
        if self.depth is not None and self.depth.shape != (frames, height, width):
            raise ValueError(f"depth wants [{frames}, {height}, {width}], got {tuple(self.depth.shape)}")
        if self.captions and len(self.captions) != frames:
            raise ValueError(f"a clip of {frames} frames wants a caption for each or none, got {len(self.captions)}")

    def __len__(self) -> int:
        return self.video.shape[0]

    def __getitem__(self, frames: slice | list[int]) -> Clip:
        depth = None if self.depth is None else self.depth[frames]
        chosen = range(len(self))[frames] if isinstance(frames, slice) else frames
        captions = tuple(self.captions[frame] for frame in chosen) if self.captions else ()
        return Clip(self.video[frames], self.cameras[frames], depth, self.prompt, captions)

    def prompt_at(self, frame: int) -> str:
        """What is told of the frames from this one on: its caption, or the prompt where it has none."""
        return (self.captions[frame] if self.captions else "") or self.prompt

    def view(self, frame: int) -> View:
        """One frame; all of its depth is unknown where the clip has none."""
        depth = torch.zeros_like(self.video[frame, 0]) if self.depth is None else self.depth[frame]
        return View(self.video[frame], depth, self.cameras[frame], frame)


def rows(values: Tensor, index: Tensor | slice) -> Tensor:
    """values[index] of values [N, ...], several times faster where `index` is a mask [N] or a list [M] of numbers that
    are not negative."""
    if not isinstance(index, Tensor):
        return values[index]
    return values.index_select(0, numbered(index, len(values)))


def numbered(index: Tensor, count: int) -> Tensor:
    """The numbers [M] of the rows that a mask of `count` rows chooses; numbers as they are."""
    if index.dtype != torch.bool:
        return index
    if index.shape != (count,):
        raise IndexError(f"a mask of {count} rows wants as many values, got {tuple(index.shape)}")
    return torch.nonzero(index).squeeze(1)


@dataclass(frozen=True)
class Splats:
    """Gaussians in world space, decoded: activations are applied, encodings live in files only."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] standard deviations, world units, > 0
    rotations: Tensor  # [N, 4] unit quaternions, wxyz
    opacities: Tensor  # [N] in [0, 1]
    colours: Tensor  # [N, K, 3] spherical harmonics, K = (degree + 1)^2; degree 0: (rgb - 0.5) / 0.28209479177387814

    def __len__(self) -> int:
        return self.means.shape[0]

    def to(self, *args, **kwargs) -> Splats:
        return Splats(*(getattr(self, field.name).to(*args, **kwargs) for field in fields(self)))

    def __getitem__(self, index) -> Splats:
        return Splats(*(rows(getattr(self, field.name), index) for field in fields(self)))

    @staticmethod
    def cat(parts: list[Splats]) -> Splats:
        return Splats(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Splats)))


@dataclass(frozen=True)
class Scene:
    """A place in splats. The sky is kept apart, because it is a picture on a far dome and not geometry."""

    splats: Splats
    sky: Splats | None = None

    @property
    def everything(self) -> Splats:
        return self.splats if self.sky is None else Splats.cat([self.splats, self.sky])


@dataclass(frozen=True)
class Mesh:
    """Triangles in world space that face the seen side (counter-clockwise from there), coloured or textured."""

    vertices: Tensor  # [V, 3] float
    faces: Tensor  # [T, 3] int64 into vertices
    colours: Tensor  # [V, 3] sRGB in [0, 1]
    invented: Tensor  # [T] bool: nobody saw this face, it closes a hole
    uv: Tensor | None = None  # [V, 2] in [0, 1], from the texture's upper left corner; u right, v down
    texture: Tensor | None = None  # [3, H, W] sRGB in [0, 1]

    def __post_init__(self) -> None:
        count, triangles = self.vertices.shape[0], self.faces.shape[0]
        shapes = [tuple(part.shape) for part in (self.vertices, self.faces, self.colours, self.invented)]
        if shapes != [(count, 3), (triangles, 3), (count, 3), (triangles,)]:
            raise ValueError(f"a mesh wants vertices [V, 3], faces [T, 3], colours [V, 3], invented [T], got {shapes}")
        if (self.uv is None) != (self.texture is None) or (self.uv is not None and self.uv.shape != (count, 2)):
            raise ValueError(f"a textured mesh wants a picture and uv [{count}, 2], one pair for each vertex")

    def __len__(self) -> int:
        return self.faces.shape[0]
