"""Hot loops, from one source for CPU and CUDA; the rasteriser's sums also once more for the vector registers of CPUs.

They take plain tensors and know no cameras, worlds or networks.
"""
