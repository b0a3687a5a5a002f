"""What the teacher has and the student lacks: local convolutions and image coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ..config import STEM_CHANNELS, STRIDED_CHANNELS


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


class ChannelNorm(nn.Module):
    """BatchNorm over the channels, without the counter of batches, which is no weight."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Return `[batch, channels, height, width]`."""
        statistics = (self.running_mean, self.running_var)
        return nn.functional.batch_norm(image, *statistics, self.weight, self.bias, training=self.training)

    def folded_into(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Return kernel and bias of a convolution that does its own work and, in evaluation mode, this one's."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()  # batch_norm's own epsilon
        return kernel * scale[:, None, None, None], self.bias - self.running_mean * scale


class StridedStem(nn.Module):
    """Four 3x3 convolutions that leave a sixteenth of the rows and one column per patch, with BatchNorm and ReLU.

    What lies beyond a clip's end is set to zero before every convolution, as if the image ended there. So padding
    cannot reach the clip, and the clip alone gives the same features.

    Args:
        patch_width: columns of the image per column of the result: 1, 2, 4, 8 or 16.
    """

    def __init__(self, patch_width: int) -> None:
        super().__init__()
        halvings = patch_width.bit_length() - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=(2, 2 if index < halvings else 1), padding=1, bias=False)
            for index, (inputs, outputs) in enumerate(pairwise((1, *STRIDED_CHANNELS)))
        )
        self.norms = nn.ModuleList(ChannelNorm(outputs) for outputs in STRIDED_CHANNELS)

    def forward(self, image: Tensor, columns: Tensor) -> Tensor:
        """Return `[batch, channels, height / 16, width / patch_width]` of images `[batch, 1, height, width]`.

        `width` is a multiple of `patch_width`, and `columns` `[batch]` is how many columns of every image belong to
        the clip.
        """
        position = torch.arange(image.shape[3], device=image.device)
        if self.training and image.device.type == "cpu":  # a third faster forwards and backwards together
            image = image.contiguous(memory_format=torch.channels_last)
        pairs = zip(self.convolutions, self.norms, strict=True)
        for convolution, norm in cast("Iterable[tuple[nn.Conv2d, ChannelNorm]]", pairs):
            if self.training:
                image = norm(convolution(image))
            else:
                kernel, bias = norm.folded_into(convolution.weight)
                image = nn.functional.conv2d(image, kernel, bias, convolution.stride, padding=1)
            columns = -(-columns // convolution.stride[1])
            inside = (position[: image.shape[3]] < columns[:, None])[:, None, None, :]
            image = nn.functional.relu(image) * inside.to(image.dtype)
        return image


def coordinate_channels(height: int, width: int) -> Tensor:
    """Return `[1, 2, height, width]`: the row, then the column, each from -1 to 1 ("image coordinate encoding")."""
    rows = torch.linspace(-1.0, 1.0, height)[:, None].expand(height, width)
    columns = torch.linspace(-1.0, 1.0, width)[None, :].expand(height, width)
    return torch.stack((rows, columns)).unsqueeze(0)
