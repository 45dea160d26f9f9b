"""Depth Anything 3: depth, cameras and splats of any number of pictures in one pass."""
