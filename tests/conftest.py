"""One thread for torch, set before it is imported: on tiny tensors threads only wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
