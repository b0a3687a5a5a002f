"""A small network as a part of a wide one that is trained: it keeps the channels that tell most of the others.

Of every layer some inputs and outputs are kept, and linear regression on real activations finds the weights with which
the kept ones best do what all did. Such a network tells six tenths of the wide one's variance before it has learnt
anything. Then it learns the wide one's tokens and embeddings by L1, on examples that are made once and kept on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ...model.config import FRAME_STRIDE, FrontendConfig
from ...model.frame_vit import FrameViT
from ...model.frontend import LogMel
from ..data.rows import Indices, images_of
from .frames import Examples
from .head import RidgeSums, ridge_heads
from .teacher import digest_of

PASSES = 3  # examples that begin with each clip
MEASURED = 200  # batches of examples to which the translation of embeddings is fitted
CHOSEN = 24  # of these, to which the network's own weights are fitted: they hold hundreds of thousands of tokens
TOKENS, COLUMNS = 20_000, 8_000  # drawn from these for each regression, and for the choice of channels
RIDGE = 1e-4  # of the mean variance: channels that go together must not get huge weights
DEVIATION_FLOOR = 1e-3

logger = logging.getLogger(__name__)


class WideBatch(NamedTuple):
    """What the stage sees; tensors on one device."""

    images: Tensor
    """`[batch, 1, n_mels, frames]`, without padding."""
    tokens: Tensor
    """What the wide network makes of them, by pooled block, `[batch, blocks, tokens, dim]`."""


class Narrowing(nn.Module):
    """L1 distance between a narrow and a wide network: tokens of the pooled blocks, and embeddings.

    Linear layers that do not ship translate between the two.

    Args:
        network: the narrow one, whose weights are replaced; its head is not trained.
        wide: the trained one, with as many blocks.
        examples: what both hear.
        frontend: of both.
        size: examples in a batch.
        seed: of the examples.
        cache: folder in which batches are kept.
        device: where batches are wanted.
    """

    def __init__(
        self,
        network: FrameViT,
        wide: FrameViT,
        examples: Examples,
        frontend: FrontendConfig,
        *,
        size: int,
        seed: int,
        cache: Path,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        network.head.requires_grad_(False)
        self.piece = 1 << 16  # a batch is of one length, and not divided
        self.size, self.seed, self.device = min(size, len(examples.clips)), seed, device
        self._examples, self._frontend = examples, LogMel(frontend)
        self._wide = [wide.eval().requires_grad_(False)]  # in a list, so that it is no part of this module
        self._per_pass = len(examples.clips) // self.size
        key = hashlib.sha256(f"{examples.key} {digest_of(wide.state_dict())} {self.size} {seed}".encode()).hexdigest()
        self._folder = cache / f"examples-{key[:16]}"
        self._folder.mkdir(parents=True, exist_ok=True)

        blocks, dim = len(wide.config.pooled), wide.config.dim
        self.tokens = nn.ModuleList(nn.Linear(network.config.dim, dim) for _ in range(blocks))
        self.embedding = nn.Linear(network.config.embedding_dim, wide.config.embedding_dim)
        self.register_buffer("mean", torch.zeros(blocks, 1, dim))
        self.register_buffer("deviation", torch.zeros(blocks, 1, dim))
        self.register_buffer("embedding_deviation", torch.zeros(wide.config.embedding_dim))

    mean: Tensor
    deviation: Tensor
    embedding_deviation: Tensor

    def batches(self, size: int, rng: np.random.Generator) -> list[Indices]:
        """Return the batches of examples that are kept, in a random order."""
        numbers = rng.permutation(PASSES * self._per_pass)
        return [np.arange(number * self.size, (number + 1) * self.size) for number in numbers]

    def batch(self, rows: Indices, seed: int) -> WideBatch:
        """Return some examples of one batch, and what the wide network makes of them."""
        if not bool(self.deviation.any()):  # a run that goes on has begun already
            self._begin()
        whole = self._kept(int(rows[0]) // self.size)
        chosen = torch.from_numpy(rows % self.size)
        return WideBatch(*(each[chosen].to(self.device) for each in whole))

    def forward(self, batch: WideBatch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        outputs = self.network.forward_features(batch.images).tokens
        own = [outputs[number].float() for number in self.network.config.pooled]
        losses = {}
        for place, (number, translate) in enumerate(zip(self.network.config.pooled, self.tokens, strict=True)):
            wanted = (batch.tokens[:, place] - self.mean[place]) / self.deviation[place]
            losses[f"block_{number}"] = (translate(own[place]) - wanted).abs().mean()
        distance = self.embedding(self.network.pool(own, None)) - self._embedding(batch)
        losses["embedding"] = (distance / self.embedding_deviation).abs().mean()
        return losses

    def _embedding(self, batch: WideBatch) -> Tensor:
        return self._wide[0].pool(list(batch.tokens.unbind(dim=1)), None)

    def _kept(self, number: int) -> WideBatch:
        """Return a batch from the disk, float32; it is made where it is not there."""
        path = self._folder / f"{number:06d}.safetensors"
        if not path.is_file():
            rng = np.random.default_rng((self.seed, number))
            order = np.random.default_rng((self.seed, number // self._per_pass)).permutation(len(self._examples.clips))
            first = number % self._per_pass * self.size
            waveforms = self._examples.batch(order[first : first + self.size], rng)
            images, frames = images_of(waveforms, self._frontend, torch.device("cpu"))
            images = images[..., : int(frames[0]) // FRAME_STRIDE * FRAME_STRIDE]
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                outputs = self._wide[0].forward_features(images.to(self.device)).tokens
            tokens = torch.stack([outputs[block].half().cpu() for block in self._wide[0].config.pooled], dim=1)
            part = path.with_suffix(f".{os.getpid()}.part")
            save_file({"images": images.half().contiguous(), "tokens": tokens.contiguous()}, part)
            part.replace(path)
        kept = load_file(path)
        return WideBatch(kept["images"].float(), kept["tokens"].float())

    @torch.no_grad()
    def _begin(self) -> None:
        """Make the network a part of the wide one, and fit what translates between them."""
        count = min(MEASURED, PASSES * self._per_pass)
        batches = [self._kept(number) for number in tqdm(range(count), desc="examples", leave=False, disable=None)]
        batches = [WideBatch(*(each.to(self.device) for each in batch)) for batch in batches]
        make_narrow(self.network, self._wide[0], [batch.images for batch in batches[:CHOSEN]])
        wanted = torch.cat([batch.tokens.transpose(1, 2).flatten(0, 1) for batch in batches[:CHOSEN]])
        self.mean.copy_(wanted.mean(dim=0)[:, None])
        self.deviation.copy_(wanted.std(dim=0)[:, None] + DEVIATION_FLOOR)
        embeddings = torch.cat([self._embedding(batch) for batch in batches])
        self.embedding_deviation.copy_(embeddings.std(dim=0))
        features = [self.network.forward_features(batch.images) for batch in batches]
        for place, (number, translate) in enumerate(zip(self.network.config.pooled, self.tokens, strict=True)):
            own = torch.cat([each.tokens[number].flatten(0, 1) for each in features[:CHOSEN]])
            explained = fit_linear(
                cast("nn.Linear", translate), own, (wanted[:, place] - self.mean[place]) / self.deviation[place]
            )
            logger.info("narrow: %.0f %% of block %d of the wide network to begin with", 100 * explained, number)
        fit_linear(self.embedding, torch.cat([each.embedding for each in features]), embeddings)


@torch.no_grad()
def make_narrow(network: FrameViT, wide: FrameViT, images: Sequence[Tensor]) -> None:
    """Give a network weights with which it does a part of what a wider one does.

    Args:
        network: of as many blocks; all its weights but the head's are replaced.
        wide: the trained one.
        images: of real clips, `[batch, 1, n_mels, frames]` each, without padding.
    """
    c, w = network.config, wide.config
    seen = _activations(wide, images)
    tokens = torch.stack([seen[f"tokens.{number}"] for number in range(w.depth + 1)])  # [depth + 1, tokens, dim]
    tokens = (tokens - tokens.mean(dim=1, keepdim=True)) / tokens.std(dim=1, keepdim=True).mean(dim=2, keepdim=True)
    channels = most_telling(tokens.flatten(0, 1), c.dim)

    first, second = cast("list[nn.Conv1d]", list(network.stem))
    wide_first, wide_second = cast("list[nn.Conv1d]", list(wide.stem))
    power = seen["stem"].view(-1, w.stem, 3).var(dim=(0, 2)) * wide_second.weight.square().sum(dim=(0, 2))
    kept = _largest(power, c.stem)
    first.weight.copy_(wide_first.weight[kept])
    first.bias.copy_(wide_first.bias[kept])  # type: ignore[union-attr, index]  # there is one
    flat = nn.Linear(3 * c.stem, c.dim)
    fit_linear(flat, seen["stem"].view(-1, w.stem, 3)[:, kept].flatten(1), seen["stem_output"][:, channels])
    second.weight.copy_(flat.weight.view(c.dim, c.stem, 3))
    second.bias.copy_(flat.bias)  # type: ignore[union-attr]

    width = w.dim // w.heads
    for number, (block, old) in enumerate(
        cast("Iterator[tuple[Any, Any]]", zip(network.blocks, wide.blocks, strict=True))
    ):
        at = f"{number}."
        if block.convolution is not None:
            block.convolution.weight.copy_(old.convolution.weight[channels])
            block.convolution.bias.copy_(old.convolution.bias[channels])
        mixed, matrix = seen[at + "mixed"], old.attention.projection.weight[channels]
        places = torch.arange(w.dim).view(w.heads, width)
        power = torch.stack([(mixed[:, head] @ matrix[:, head].T).var(dim=0).sum() for head in places])
        head = places[_largest(power, c.heads)].flatten()
        qkv = torch.cat([head, head + w.dim, head + 2 * w.dim])
        fit_linear(block.attention.qkv, _normed(seen[at + "attention"], channels), seen[at + "qkv"][:, qkv])
        fit_linear(block.attention.projection, mixed[:, head], seen[at + "attention_output"][:, channels])
        hidden = functional.gelu(seen[at + "hidden"])
        units = _largest(hidden.var(dim=0) * old.mlp.output.weight[channels].square().sum(dim=0), c.mlp_dim)
        fit_linear(block.mlp.hidden, _normed(seen[at + "mlp"], channels), seen[at + "hidden"][:, units])
        fit_linear(block.mlp.output, hidden[:, units], seen[at + "mlp_output"][:, channels])
        for norm in (block.attention.norm, block.mlp.norm):  # the layer behind it has taken in what it scaled by
            norm.reset_parameters()


def _activations(network: FrameViT, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return inputs and outputs of the layers at some tokens, the same ones everywhere, `[tokens, channels]` each."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    layers: list[tuple[Any, str | None, str | None]] = [(network.stem[1], "stem", "stem_output")]
    blocks: Any = network.blocks
    for number, block in enumerate(blocks):
        layers += [
            (block.attention, f"{number}.attention", None),
            (block.attention.qkv, None, f"{number}.qkv"),
            (block.attention.projection, f"{number}.mixed", f"{number}.attention_output"),
            (block.mlp, f"{number}.mlp", None),
            (block.mlp.hidden, None, f"{number}.hidden"),
            (block.mlp.output, None, f"{number}.mlp_output"),
        ]
    generator = torch.Generator().manual_seed(0)
    rows: Tensor

    def take(name: str, values: Tensor) -> None:
        found[name].append(values.flatten(0, 1)[rows])

    def hook(before: str | None, behind: str | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if before == "stem":  # the three columns that every token is made of
                columns = functional.unfold(inputs[0][:, :, None], (1, 3), padding=(0, 1), stride=(1, FRAME_STRIDE))
                take(before, columns.transpose(1, 2))
                output = output.transpose(1, 2)
            elif before is not None:
                take(before, inputs[0])
            if behind is not None:
                take(behind, output)

        return keep

    handles = [layer.register_forward_hook(hook(before, behind)) for layer, before, behind in layers]
    for batch in images:
        count = len(batch) * -(-batch.shape[3] // FRAME_STRIDE)
        rows = torch.randperm(count, generator=generator)[: TOKENS // len(images)].to(batch.device)
        for number, tokens in enumerate(network.forward_features(batch).tokens):
            take(f"tokens.{number}", tokens)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values) for name, values in found.items()}


def most_telling(values: Tensor, count: int) -> Tensor:
    """Return the `count` columns of `values` `[rows, columns]` that tell most of the others, ascending.

    Each is the one of which those before it tell least: QR decomposition with pivoting.
    """
    from scipy.linalg import qr

    drawn = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:COLUMNS]
    _, _, order = qr(values[drawn.to(values.device)].cpu().numpy(), mode="economic", pivoting=True)
    return torch.from_numpy(np.sort(order[:count]).astype(np.int64)).to(values.device)


def fit_linear(layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> float:
    """Fit a linear layer to inputs `[rows, inputs]` and outputs `[rows, outputs]` by least squares.

    Returns:
        The share of the outputs' variance that it tells.
    """
    x, y = inputs.double().cpu(), outputs.double().cpu()
    sums = RidgeSums(x.shape[1], y.shape[1])
    sums.add(x, y, torch.ones(len(x), dtype=x.dtype))
    ((_, (weight, bias)),) = ridge_heads([sums], [RIDGE * float(x.var(dim=0, correction=0).mean())])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return 1.0 - float((y - x @ weight.T - bias).square().sum() / (y - y.mean(dim=0)).square().sum())


def _normed(values: Tensor, channels: Tensor) -> Tensor:
    return functional.layer_norm(values[:, channels], (len(channels),))


def _largest(values: Tensor, count: int) -> Tensor:
    """Return the places of the `count` largest values, ascending."""
    return values.topk(count).indices.sort().values
