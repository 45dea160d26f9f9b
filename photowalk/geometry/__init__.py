"""Cameras, rigid motions, camera paths and the path language. Knows nothing of images, networks or files of worlds."""

from photowalk.geometry.cameras import Cameras

__all__ = ["Cameras"]
