"""photowalk turns one photograph into a 3D world that you can walk through."""

__version__ = "0.1.0"
