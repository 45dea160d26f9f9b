"""Every kernel compiles for a CUDA GPU too, which needs none: Warp carries NVIDIA's compiler."""

import importlib
import pkgutil

import pytest
import warp as wp

from photowalk import kernels

ARCHITECTURE = 90  # of the H100 and the H200; what compiles for it compiles for those before


def modules_with_kernels():
    for found in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{found.name}")
        own = {name for name, value in vars(module).items() if isinstance(value, wp.Kernel)}
        if any(vars(module)[name].module.name == module.__name__ for name in own):
            yield module


@pytest.mark.skipif(wp.get_cuda_toolkit_version() is None, reason="wants CUDA's compiler")
@pytest.mark.parametrize("module", modules_with_kernels(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_kernels_compile_for_a_gpu(module, tmp_path):
    wp.compile_aot_module(module, arch=ARCHITECTURE, module_dir=tmp_path, use_ptx=True)
    (assembly,) = tmp_path.glob("*.ptx")
    entries = assembly.read_text().count(".entry")
    assert entries >= len([value for value in vars(module).values() if isinstance(value, wp.Kernel)])
