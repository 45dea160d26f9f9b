"""Which file means what: a file's ending, with the word before it where one ending has several uses."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from photowalk.export.contents import Contents
from photowalk.export.conventions import ExportError
from photowalk.scene.images import NO_ROOM


@dataclass(frozen=True)
class Format:
    ending: str  # `.ply`, or a word and an ending: `.points.ply` is also a file that is called points.ply
    what: str
    module: str  # of photowalk.export; imported when it is used, because some want optional packages
    function: str
    scene: bool = True  # whether it shows what was reconstructed, or the walk's cameras alone

    def write(self, file: Path, contents: Contents) -> None:
        """Raises ExportError where an optional package or a part of the contents is missing, and an OSError that names
        `file` where there is no room for it, whatever file on the way to it did not fit."""
        try:
            module = importlib.import_module(f"photowalk.export.{self.module}")
        except ModuleNotFoundError as error:
            raise ExportError(
                f"{file}: writing {self.ending} needs the package {error.name}; install it with: "
                f"pip install 'photowalk[export]'"
            ) from error
        try:
            getattr(module, self.function)(file, contents)
        except OSError as error:
            beside = error.filename is None or file.absolute().parent in Path(error.filename).absolute().parents
            if (
                error.errno in NO_ROOM and beside
            ):  # elsewhere, in the system's folder for temporary files, it is as told
                error.filename = str(file)
            raise


FORMATS = (
    Format(".ply", "splats", "ply", "export_ply"),
    Format(".spz", "splats, compressed", "spz", "write_spz"),
    Format(".glb", "mesh and splats", "glb", "write_glb"),
    Format(".mesh.glb", "mesh alone", "glb", "write_mesh_glb"),
    Format(".stl", "collision mesh", "stl", "write_stl"),
    Format(".usdz", "splats, meshes, physics and cameras", "usd", "write_usdz"),
    Format(".usdc", "the same without texture", "usd", "write_usdc"),
    Format(".nurec.usdz", "all of it for Isaac Sim 5, splats as NuRec", "nurec", "write_nurec"),
    Format(".html", "a page to walk in", "html", "write_html"),
    Format(".points.ply", "coloured points", "points", "write_points_ply"),
    Format(".xyz", "coloured points as text", "points", "write_xyz"),
    Format(".json", "cameras, transforms.json", "camera_files", "write_cameras", scene=False),
    Format(".npz", "cameras", "camera_files", "write_cameras", scene=False),
    Format(".colmap", "cameras, a folder of COLMAP's text files", "camera_files", "write_colmap", scene=False),
)


def format_of(file: str | Path) -> Format:
    """The format of the longest ending that the file's name has. Raises ExportError that lists all."""
    name = "." + Path(file).name.lower()
    fitting = [known for known in FORMATS if name.endswith(known.ending)]
    if not fitting:
        endings = ", ".join(f"{known.ending} ({known.what})" for known in FORMATS)
        raise ExportError(f"{file}: '{Path(file).suffix}' is no known format; known endings: {endings}")
    return max(fitting, key=lambda known: len(known.ending))
