"""Local convolutions, of the paper's teacher and of the compact student, and the teacher's image coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from .config import STEM_CHANNELS, STRIDED_CHANNELS


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
        self._memory: tuple[list[tuple[Tensor, int]], tuple[tuple[Tensor, Tensor], ...]] | None = None

    def forward(self, image: Tensor, columns: Tensor) -> Tensor:
        """Return `[batch, channels, height / 16, width / patch_width]` of images `[batch, 1, height, width]`.

        `width` is a multiple of `patch_width`, and `columns` `[batch]` is how many columns of every image belong to
        the clip.
        """
        if not self.training:
            return self._infer(image, columns)
        if image.device.type == "cpu":  # a third faster forwards and backwards together
            image = image.contiguous(memory_format=torch.channels_last)
        for convolution, norm in self._layers():
            image = norm(convolution(image))
            columns = -(-columns // convolution.stride[1])
            image = nn.functional.relu(image) * _inside(image, columns)
        return image

    def _layers(self) -> Iterable[tuple[nn.Conv2d, ChannelNorm]]:
        return cast("Iterable[tuple[nn.Conv2d, ChannelNorm]]", zip(self.convolutions, self.norms, strict=True))

    def _infer(self, image: Tensor, columns: Tensor) -> Tensor:
        ragged = bool((columns < image.shape[3]).any())  # else there is nothing beyond any clip's end
        for (kernel, bias), (convolution, _) in zip(self._folded(), self._layers(), strict=True):
            image = nn.functional.conv2d(image, kernel, bias, convolution.stride, padding=1).relu()
            if ragged:
                columns = -(-columns // convolution.stride[1])
                image = image * _inside(image, columns)
        return image

    def _folded(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return the kernels and biases with the norms in them, made once as long as no weight changes."""
        weights = [*self.parameters(), *self.buffers()]
        kept = not torch.is_grad_enabled() and not any(weight.is_inference() for weight in weights)
        # The tensors themselves are part of it, for an address may be another tensor's tomorrow.
        state = [(weight, weight._version) for weight in weights] if kept else []
        memory = self._memory  # once, for another thread may forget it meanwhile
        if (
            kept
            and memory is not None
            and all(
                now is then and version == before
                for (now, version), (then, before) in zip(state, memory[0], strict=True)
            )
        ):
            return memory[1]
        folded = tuple(norm.folded_into(convolution.weight) for convolution, norm in self._layers())
        self._memory = (state, folded) if kept else None
        return folded

    def _apply(self, fn: Any, recurse: bool = True) -> StridedStem:
        self._memory = None  # another device or type
        return cast("StridedStem", super()._apply(fn, recurse))  # type: ignore[no-untyped-call]


def _inside(image: Tensor, columns: Tensor) -> Tensor:
    """Return 1 where a column belongs to the clip, else 0, `[batch, 1, 1, width]`."""
    position = torch.arange(image.shape[3], device=image.device)
    return (position < columns[:, None])[:, None, None, :].to(image.dtype)


def coordinate_channels(height: int, width: int) -> Tensor:
    """Return `[1, 2, height, width]`: the row, then the column, each from -1 to 1 ("image coordinate encoding")."""
    rows = torch.linspace(-1.0, 1.0, height)[:, None].expand(height, width)
    columns = torch.linspace(-1.0, 1.0, width)[None, :].expand(height, width)
    return torch.stack((rows, columns)).unsqueeze(0)
