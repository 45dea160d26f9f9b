"""Hot loops, from one source for CPU and CUDA. They take plain tensors and know no cameras, worlds or networks."""
