"""Hot loops, from one source for CPU and CUDA. They take plain tensors and know nothing of cameras, worlds or networks."""
