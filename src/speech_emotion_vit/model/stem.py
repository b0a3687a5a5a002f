"""What the paper's teacher has and the student has not: local convolutions and image coordinates."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .config import STEM_CHANNELS


class ConvStem(nn.Module):
    """Six 3x3 convolutions at full resolution, each with InstanceNorm (no affine) and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1) for inputs, outputs in pairwise(STEM_CHANNELS)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return `[batch, 1, height, width]` of the same shape."""
        for convolution in self.convolutions:
            image = nn.functional.gelu(nn.functional.instance_norm(convolution(image)))
        return image


def coordinate_channels(height: int, width: int) -> Tensor:
    """Return `[1, 2, height, width]`: the row, then the column, each from -1 to 1 ("image coordinate encoding")."""
    rows = torch.linspace(-1.0, 1.0, height)[:, None].expand(height, width)
    columns = torch.linspace(-1.0, 1.0, width)[None, :].expand(height, width)
    return torch.stack((rows, columns)).unsqueeze(0)
