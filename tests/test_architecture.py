"""The shape of the code: who may import whom, where devices and sizes are named, and whether its pages are true."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "photowalk"

_BELOW_SCENE = {"geometry", "kernels"}
_BELOW_WORLD = _BELOW_SCENE | {"scene", "memory", "diffusion", "models", "perception", "parallel"}

# Part of the package -> the other parts that it may import. A part is a folder or a file directly in photowalk/;
# the session and what it finishes worlds with are parts of their own, because they stand above the rest of world/, and
# so are the networks of checkpoints/.
MAY_IMPORT = {
    "geometry": set(),
    "kernels": set(),
    "diffusion": set(),
    "models": {"kernels"},
    "parallel": {"kernels", "models"},
    "checkpoints": {"kernels", "models"},
    "checkpoints.networks": _BELOW_WORLD | {"world", "presets", "checkpoints"},
    "scene": _BELOW_SCENE,
    "memory": _BELOW_SCENE | {"scene"},
    "perception": _BELOW_SCENE | {"scene", "models"},
    "world": _BELOW_WORLD,
    "presets": _BELOW_WORLD | {"world", "checkpoints"},
    "world.lifting": _BELOW_WORLD | {"world", "presets", "reconstruct", "export"},
    "world.exporting": _BELOW_SCENE | {"scene", "world", "export"},
    "world.session": _BELOW_WORLD | {"world", "world.lifting", "world.exporting", "presets"},
    "reconstruct": _BELOW_SCENE | {"scene", "models", "perception"},
    "simulate": _BELOW_SCENE | {"scene", "world"},
    "export": _BELOW_SCENE | {"scene", "models", "perception"},
    "synthetic": _BELOW_SCENE | {"scene", "data"},
    "data": _BELOW_SCENE | {"scene", "models", "perception"},
}
# These see whatever they use, and nobody but each other and the command line sees them.
ENDS = {"train", "evaluate", "studio", "cli"}

DEVICES_ARE_NAMED_IN = ("world/placement.py", "train/", "cli/", "export/nurec.py")  # the last: words of a file format
SIZES_ARE_NAMED_IN = ("presets/", "train/")


def source_files():
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def part_of(module):
    """The part that photowalk.part.x.y belongs to; empty for photowalk itself."""
    name = module.removeprefix("photowalk").removeprefix(".")
    return name if name in MAY_IMPORT else name.split(".")[0]


def imported_modules(path):
    """Every module of photowalk that a file imports, at its top or inside a function."""
    modules = {module_name(other) for other in source_files()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(path):
    return {name for name in imported_modules(path) if name.split(".")[0] == "photowalk"}


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_imports_go_in_the_allowed_directions(path):
    part = part_of(module_name(path))
    if part in ENDS | {"", "__main__"}:
        return
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT and in ARCHITECTURE.md what it may import"
    parts = {name.split(".")[1] for name in own_imports(path) if "." in name}
    assert parts <= MAY_IMPORT[part] | {part}, (
        f"{module_name(path)} must not import {parts - MAY_IMPORT[part] - {part}}"
    )


def test_the_allowed_directions_have_no_circle():
    list(TopologicalSorter(MAY_IMPORT).static_order())


def test_no_module_imports_itself_through_others():
    graph = {module_name(path): own_imports(path) - {"photowalk", module_name(path)} for path in source_files()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_devices_are_named_in_few_places(path):
    if path.relative_to(PACKAGE).as_posix().startswith(DEVICES_ARE_NAMED_IN):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"(cuda|mps|xpu)(:\d+)?", node.value)
        else:
            named = isinstance(node, ast.Attribute) and node.attr == "cuda"
        assert not named, f"{path}:{node.lineno} names a device; use the device of the tensors that were given"


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_picture_sizes_are_named_in_few_places(path):
    if path.relative_to(PACKAGE).as_posix().startswith(SIZES_ARE_NAMED_IN):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        size = isinstance(node, ast.Constant) and node.value in (448, 832)
        assert not size, f"{path}:{node.lineno} names a preset's size; take it from the preset"


def test_architecture_lists_every_part_and_no_other():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in PACKAGE.iterdir():
        if path.is_dir() and not path.name.startswith("__"):
            assert f"{path.name}/" in text, f"ARCHITECTURE.md does not list photowalk/{path.name}/"
        elif path.suffix == ".py":
            assert path.name in text, f"ARCHITECTURE.md does not list photowalk/{path.name}"
    for name in re.findall(r"^      (\w\S*) ", text, flags=re.MULTILINE):
        assert (PACKAGE / name).exists(), f"ARCHITECTURE.md lists photowalk/{name}, which does not exist"


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_links_and_named_files_of_the_pages_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which does not exist"
    for name in re.findall(r"`((?:photowalk|tests|benchmarks|examples|docs|recipes|scripts)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"
