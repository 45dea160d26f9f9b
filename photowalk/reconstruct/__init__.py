"""From a walk to a place: splats of all its frames, and what they look like."""

from photowalk.reconstruct.colours import closed_from_nearer as closed_from_nearer
from photowalk.reconstruct.colours import fit_colours as fit_colours
from photowalk.reconstruct.colours import looked_at as looked_at
from photowalk.reconstruct.fuse import reconstruct as reconstruct
from photowalk.reconstruct.preview import write_preview as write_preview
from photowalk.reconstruct.refine import refine as refine
