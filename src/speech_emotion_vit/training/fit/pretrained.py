"""What is trained already: initial weights, teachers, and the network under a probe."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from torch import Tensor, nn

from ...errors import ConfigError
from ...model.config import ClassifierConfig, FrontendConfig, ModelConfig, Pooling
from ...model.vit import SpectrogramViT
from ...weights.checkpoint import HEAD, load_network
from ...weights.resolve import resolve_model
from ..recipes import PROBED
from .stages import FrozenTeacher


def load_model(model: str | None) -> tuple[SpectrogramViT, ClassifierConfig, str]:
    """Return network, configuration and full name of a model given by name, folder or file; None is `PROBED`.

    Raises:
        WeightsError: the model cannot be found, verified or read.
    """
    resolved = resolve_model(model or PROBED)
    network, config = load_network(resolved)
    name = f"{resolved.name}@{resolved.revision}"
    if not isinstance(network, SpectrogramViT):
        raise ConfigError(f"{name}: is no network on images of one width: choose one of the paper's shape")
    return network, config, name


def start_from(network: SpectrogramViT, model: str, labels: tuple[str, ...]) -> str:
    """Load the weights of `model` where it has the same shape, and return what was done.

    Raises:
        WeightsError: the model cannot be found, verified or read.
    """
    source, config, name = load_model(model)
    # Neither the head nor what it reads changes the shape of all else.
    of_head = {key: getattr(config.model, key) for key in ("num_classes", "pooling")}
    assert isinstance(config.model, ModelConfig)
    if dataclasses.replace(network.config, **of_head, dropout=config.model.dropout) != config.model:
        return f"random weights, for {name} has another shape"
    if config.labels != labels or config.model.pooling != network.config.pooling:
        network.load_state_dict(without_head(source), strict=False)
        differs = "what it reads differs" if config.labels == labels else "the labels differ"
        return f"starts from {name}, but for the head, since {differs}"
    network.load_state_dict(source.state_dict())
    return f"starts from {name}"


def load_teacher(model: str, labels: tuple[str, ...], frontend: FrontendConfig) -> tuple[FrozenTeacher, str]:
    """Return one of the recipe's `teachers`, with `labels` alone, and its full name.

    Raises:
        WeightsError: the model cannot be found, verified or read.
        ConfigError: it does not know a label, or looks at other images.
    """
    network, config, name = load_model(model)
    unknown = [label for label in labels if label not in config.labels]
    if unknown:
        raise ConfigError(f"{name}: does not know {', '.join(unknown)}: choose a teacher that knows every label")
    require_frontend(name, config, frontend)
    head = nn.Linear(network.head.in_features, len(labels))
    kept = [config.labels.index(label) for label in labels]
    head.load_state_dict({key: tensor[kept] for key, tensor in network.head.state_dict().items()})
    network.head = head
    return FrozenTeacher(network), name


class OwnHead(NamedTuple):
    """What the head of a trained model reads and says."""

    labels: tuple[str, ...]
    """Its labels."""
    weight: Tensor
    """Of calibrated logits `[classes, values]`; it reads the first `values` of the embedding."""
    bias: Tensor
    """Of calibrated logits `[classes]`."""


def headless(
    model: str | None, num_classes: int, frontend: FrontendConfig, *, contours: bool = True
) -> tuple[SpectrogramViT, OwnHead, str]:
    """Return a trained network with an untrained head, which reads all there is to read, its own head, and its name.

    Behind a strided stem that is more than the network's own head reads: the statistics of the stem's output too,
    which are closer to the sound and further from the labels that the network was trained for, and, with `contours`,
    how loudness, brightness and pitch run through the clip.

    Raises:
        WeightsError: the model cannot be found, verified or read.
        ConfigError: it looks at other images.
    """
    source, config, name = load_model(model)
    # A floor may be added, for a network that was trained with noise takes it for some, but not be left out.
    floor = config.frontend.floor
    require_frontend(name, config, frontend if floor else dataclasses.replace(frontend, floor=floor))
    assert isinstance(config.model, ModelConfig)
    pooling: Pooling = config.model.pooling
    if config.model.stem == "strided":
        pooling = "contour_statistics" if contours else "stem_statistics"
    network = SpectrogramViT(dataclasses.replace(config.model, num_classes=num_classes, pooling=pooling))
    network.load_state_dict(without_head(source), strict=False)
    weight, bias = source.head.weight.detach(), source.head.bias.detach()
    return network, OwnHead(config.labels, weight / config.temperature, bias / config.temperature), name


def without_head(network: SpectrogramViT) -> dict[str, Tensor]:
    """Return the state dict of `network` but for its head."""
    return {key: tensor for key, tensor in network.state_dict().items() if not key.startswith(HEAD)}


def require_frontend(name: str, config: ClassifierConfig, frontend: FrontendConfig) -> None:
    """Refuse a model that looks at other images than those of `frontend`.

    Raises:
        ConfigError: it does.
    """
    # Frames closer together tell the same about the same moments: columns are averages over them.
    if dataclasses.replace(config.frontend, hop_length=frontend.hop_length) != frontend:
        raise ConfigError(
            f"{name}: its front-end is {config.frontend}, that of this run {frontend}: set its values, or choose "
            "another model"
        )
