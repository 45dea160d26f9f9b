"""CLIP's picture encoder, as the published denoiser reads it: the tokens of the layer before the last.

The network is that of transformers. It knows nothing of where weights lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures (Radford et al., 2021)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class ClipImage(nn.Module):
    """Implements the protocol `ImageEncoder`. Works in the number format of its weights, without autocast.

    Pictures are squashed to a square by bicubic interpolation without antialiasing, not cropped, as the published
    weights were trained; the image processor of transformers does otherwise.
    """

    def __init__(self, network: CLIPVisionModel) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in [0, 1] -> [B, 1 + patches, D], the class token first."""
        side = self.network.config.image_size
        mean, deviation = (images.new_tensor(values).view(-1, 1, 1).float() for values in (MEAN, DEVIATION))
        with torch.autocast(images.device.type, enabled=False):
            squashed = F.interpolate(images.float(), size=(side, side), mode="bicubic", align_corners=False)
            normed = (squashed - mean) / deviation
            pixels = normed.to(self.network.dtype)
            return self.network(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
