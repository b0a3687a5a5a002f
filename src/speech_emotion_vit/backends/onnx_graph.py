"""The whole way from waveform to probabilities as one ONNX graph, for any configuration, without torch.

The graph does what `LogMel` and `SpectrogramViT.embed` do, with standard operators only. The spectrum is two matrix
products, because ONNX Runtime's own DFT is many times slower; frames that would see only padding are not computed.
Batch and length are free; of more than the front-end's window its beginning is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..model.config import (
    FRAME_STRIDE,
    STATISTICS_EPSILON,
    ClassifierConfig,
    FrameViTConfig,
    FrontendConfig,
    ModelConfig,
)
from ..model.mel import FLOOR_LEVEL, SILENCE_POWER, analysis_window, interpolation_matrix, mel_filterbank
from . import onnx_proto
from .onnx_proto import Attribute

INPUT, PROBABILITIES, EMBEDDING = "waveform", "probabilities", "embedding"

Weights = Mapping[str, npt.NDArray[np.float32]]

_NORM_EPSILON = 1e-5  # torch's default in every normalisation
_LARGEST_BLOCK = 32  # samples that the first half of the spectrum takes at a time
_BANDS = 32  # multiplied at a time: neighbours need only a part of the spectrum


def build_model(
    config: ClassifierConfig, weights: Weights, *, int8: bool = False, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the content of an ONNX file: windows `[batch, samples]` to probabilities and embedding.

    Args:
        config: labels, temperature, front-end and network.
        weights: the network's state dict in float32, complete and of the right shapes.
        int8: store the network's matrices and kernels, but for the head, with 8 bits a value. ONNX Runtime computes in
            float32 all the same: it expands them once, when it loads the file.
        metadata: properties of the file.
    """
    graph = Graph(int8=int8)
    probabilities, embedding = answer(graph, config, weights, INPUT)
    graph("Identity", probabilities, outputs=[PROBABILITIES])
    graph("Identity", embedding, outputs=[EMBEDDING])
    return graph.model(
        inputs=[onnx_proto.value(INPUT, ["batch", "samples"])],
        outputs=[
            onnx_proto.value(PROBABILITIES, ["batch", len(config.labels)]),
            onnx_proto.value(EMBEDDING, ["batch", config.model.embedding_dim]),
        ],
        metadata=metadata or {},
    )


def answer(graph: Graph, config: ClassifierConfig, weights: Weights, waveform: str) -> tuple[str, str]:
    """Return calibrated probabilities `[batch, labels]` and embeddings `[batch, dim]` of windows `[batch, samples]`."""
    window = graph.first(waveform, [config.frontend.window_samples], 1)  # the last frames would hear what comes behind
    mel_power, n_frames = _mel_power(graph, config.frontend, window)
    if isinstance(config.model, FrameViTConfig):
        frames = _real_frames(graph, config.frontend, window)
        level = _level(graph, config.frontend, _inside(graph, mel_power, frames, config.frontend.n_frames))
        embedding = _FrameNetwork(graph, config.model, weights).embedding(level, frames, config.frontend.n_frames)
    else:
        network = _Network(graph, config.model, weights)
        embedding = network.embedding(_image(graph, config.frontend, mel_power, n_frames))
    # The head is in float32 with int8 too: what it reads has many scales, so its weights have, and it is small.
    values, last = embedding, "head"
    if "head.2.weight" in weights:
        values, last = graph("Gelu", _product(graph, values, weights, "head.0")), "head.2"
    logits = graph("Div", _product(graph, values, weights, last), config.temperature)
    return graph("Softmax", logits, axis=-1), embedding


def _product(graph: Graph, values: str, weights: Weights, name: str) -> str:
    """Return what a linear layer makes of `values` `[batch, inputs]`, in float32."""
    return graph("Add", graph("MatMul", values, weights[f"{name}.weight"].T), weights[f"{name}.bias"])


class Graph:
    """Nodes in the order they run, and the constants they use.

    Calling it adds a node and returns the name of its output. Inputs are names, or arrays and numbers, which become
    constants: integers of 64 bits, or float32.

    Args:
        int8: store weights with 8 bits a value.
        half: store weights that float16 holds exactly so, which is half of the size.
    """

    def __init__(self, *, int8: bool, half: bool = False) -> None:
        self.int8 = int8
        self.half = half
        self.nodes: list[bytes] = []
        self.initializers: list[bytes] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names = itertools.count()  # of nodes, those of loops too

    def __call__(
        self, kind: str, *inputs: str | npt.ArrayLike, outputs: list[str] | None = None, **attributes: Attribute
    ) -> str:
        """Add a node and return the name of its first output."""
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        outputs = outputs or [f"{kind}_{next(self._names)}"]
        self.nodes.append(onnx_proto.node(kind, names, outputs, attributes))
        return outputs[0]

    def each(self, numbers: str, body: Callable[[str], Sequence[str]]) -> list[str]:
        """Return what `body` makes of every number `[1]` from 0 on, stacked along a new first axis.

        It is a loop, so memory is needed for one number at a time.

        Args:
            numbers: how many there are, `[1]`.
            body: adds its nodes and returns the names of its outputs, whose shapes are the same every time.
        """
        outer, self.nodes = self.nodes, []
        number, before, after = (f"{name}_{next(self._names)}" for name in ("number", "before", "after"))
        found = body(self("Reshape", number, [1]))
        self("Identity", before, outputs=[after])
        content = onnx_proto.graph(
            "body",
            self.nodes,
            [onnx_proto.value(number, [], onnx_proto.INT64), onnx_proto.value(before, [], onnx_proto.BOOL)],
            [onnx_proto.value(after, [], onnx_proto.BOOL), *(onnx_proto.value(name, None) for name in found)],
        )
        self.nodes = outer
        stacked = [f"Loop_{next(self._names)}" for _ in found]
        self("Loop", numbers, "", outputs=stacked, body=content)
        return stacked

    def model(self, inputs: Sequence[bytes], outputs: Sequence[bytes], metadata: Mapping[str, str]) -> bytes:
        """Return all of it as the content of an ONNX file."""
        content = onnx_proto.graph("speech_emotion_vit", self.nodes, inputs, outputs, self.initializers)
        return onnx_proto.model(content, metadata)

    def constant(self, value: npt.ArrayLike) -> str:
        """Return the name of a constant; equal ones are stored once."""
        array = np.asarray(value)
        if array.dtype not in (np.int8, np.float16):
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = (array.dtype.char, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._known)}"
            self.initializers.append(onnx_proto.tensor(self._known[key], array))
        return self._known[key]

    def matrix(self, value: npt.ArrayLike) -> str:
        """Return the name of weights `[..., inputs, outputs]`; with int8, every output has a scale of its own."""
        array = np.asarray(value)
        if not self.int8:
            return self._exact(array)
        scale = np.maximum(np.abs(array).max(axis=-2, keepdims=True), 1e-12) / 127
        values = self("Cast", np.round(array / scale).astype(np.int8), to=onnx_proto.FLOAT)
        return self("Mul", values, scale)

    def kernel(self, value: npt.ArrayLike) -> str:
        """Return the name of a convolution's weights `[outputs, inputs, height, width]`, stored as `matrix` does."""
        array = np.asarray(value)
        if not self.int8:
            return self._exact(array)
        return self.reshape(self.transpose(self.matrix(array.reshape(len(array), -1).T), 1, 0), *array.shape)

    def _exact(self, array: npt.NDArray[np.floating]) -> str:
        """Return the name of weights that are no other for being stored."""
        if self.half:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if (half == array).all():
                return self("Cast", half, to=onnx_proto.FLOAT)
        return self.constant(array)

    def size(self, tensor: str, axis: int) -> str:
        """Return one size of a tensor, `[1]`."""
        return self("Shape", tensor, start=axis, end=axis + 1)

    def first(self, tensor: str, count: str | list[int], axis: int) -> str:
        """Return the first `count` `[1]` entries of an axis."""
        return self("Slice", tensor, [0], count, [axis])

    def reshape(self, tensor: str, *shape: int) -> str:
        """Return the same values in another shape; 0 keeps a size, -1 is what is left."""
        return self("Reshape", tensor, list(shape))

    def transpose(self, tensor: str, *axes: int) -> str:
        """Return the axes in another order."""
        return self("Transpose", tensor, perm=axes)


def _mel_power(graph: Graph, c: FrontendConfig, window: str) -> tuple[str, str]:
    """Return Mel powers `[batch, n_mels, frames]` of windows and the number of frames that touch audio, `[1]`.

    With n = block * n1 + n2 and k = k1 + order * k2, the sum over n1 is a convolution with all n2 as groups, and the
    sum over n2 a matrix product for every k1: the first step of Cooley and Tukey's algorithm, with the window and
    the rotations between the two in the constants.
    """
    half = c.win_length // 2
    extra = c.hop_length if c.columns is None else half + c.hop_length - 1  # as in `FrontendConfig.frames_of`
    frames = graph("Div", graph("Add", graph.size(window, 1), [extra]), [c.hop_length])
    n_frames = graph("Min", frames, [c.n_frames])
    needed = graph("Add", graph("Mul", n_frames, [c.hop_length]), [c.win_length - c.hop_length])
    padded = graph.first(graph("Pad", window, [0, half, 0, c.win_length]), needed, 1)

    common = np.gcd.reduce([c.n_fft, c.win_length, c.hop_length])
    block = max(size for size in range(1, _LARGEST_BLOCK + 1) if common % size == 0)
    order = c.n_fft // block
    n1, n2 = np.arange(c.win_length // block), np.arange(block)
    k1, k2 = np.arange(order // 2 + 1), np.arange(block)  # of a real signal the other half is the mirror image

    # Rows of the second product whose bins are neighbours stand together: k2 and the one its mirror image falls on.
    k2 = k2[np.argsort(np.minimum(k2, block - 1 - k2), kind="stable")]

    shape = analysis_window(c.window, c.win_length).reshape(len(n1), block)
    turn = np.exp(-2j * np.pi * np.outer(n1, k1) / order)[:, None, :] * shape[:, :, None]  # [n1, n2, k1]
    turn = turn * np.exp(-2j * np.pi * np.outer(n2, k1) / c.n_fft)
    first = np.stack((turn.real, turn.imag), axis=-1).transpose(1, 2, 3, 0)  # [n2, k1, part, n1]
    phases = np.exp(-2j * np.pi * np.outer(k2, n2) / block)
    phases = np.stack((phases, 1j * phases), axis=-1)  # [k2, n2, part]: what real and imaginary input contribute
    second = np.stack((phases.real, phases.imag), axis=1).transpose(0, 1, 3, 2)  # [k2, part, part, n2]

    rows = graph.transpose(graph.reshape(padded, 0, -1, block), 0, 2, 1)
    inner = graph("Conv", rows, first.reshape(-1, 1, len(n1)), group=block, strides=[c.hop_length // block])
    inner = graph.transpose(graph.reshape(inner, 0, block, len(k1), 2, -1), 0, 2, 3, 1, 4)
    inner = graph.reshape(inner, 0, len(k1), 2 * block, -1)
    spectrum = graph("MatMul", second.reshape(2 * block, 2 * block), inner)  # [batch, k1, (k2, part), frames]
    power = graph("Mul", spectrum, spectrum)

    filters = mel_filterbank(c.sampling_rate, c.n_fft, c.n_mels, c.f_min, c.f_max, c.mel_scale, c.mel_norm)
    place = np.zeros((len(k1), block, 2, c.n_mels))
    position = np.argsort(k2)
    for bin_, weights in enumerate(filters):
        here = bin_ if bin_ % order < len(k1) else c.n_fft - bin_  # the mirror image has the same power
        place[here % order, position[here // order]] = weights
    bands = []
    for start in range(0, c.n_mels, _BANDS):
        group = place[..., start : start + _BANDS].reshape(len(k1), 2 * block, -1)
        used = group.any(axis=(0, 2)).nonzero()[0]
        rows_used = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        needed = graph("Slice", power, [rows_used.start], [rows_used.stop], [2])
        weights = group[:, rows_used].reshape(-1, group.shape[2])
        bands.append(graph("MatMul", weights.T, graph.reshape(needed, 0, len(weights), -1)))
    return graph("Concat", *bands, axis=1), n_frames


def _image(graph: Graph, c: FrontendConfig, mel_power: str, n_frames: str) -> str:
    """Return the image `[batch, 1, n_mels, columns]`; frames that touch no audio count as silence."""
    assert c.columns is not None  # the network reads images of one width
    matrix = interpolation_matrix(c.n_frames, c.columns, c.interpolation)
    image = graph("MatMul", _level(graph, c, mel_power), graph.first(graph.constant(matrix), n_frames, 0))
    return graph("Unsqueeze", image, [1])


def _level(graph: Graph, c: FrontendConfig, mel_power: str) -> str:
    """Return Mel powers `[batch, n_mels, frames]` as 0..1, `top_db` below the window's loudest value to it."""
    loudest = graph("Max", graph("ReduceMax", mel_power, [1, 2], keepdims=1), SILENCE_POWER)
    ratio = graph("Max", graph("Div", mel_power, loudest), 10.0 ** (-c.top_db / 10.0))
    level = graph("Add", graph("Mul", graph("Log", ratio), 10.0 / (c.top_db * np.log(10.0))), 1.0)
    return graph("ThresholdedRelu", level, alpha=FLOOR_LEVEL)


def _real_frames(graph: Graph, c: FrontendConfig, window: str) -> str:
    """Return how many frames belong to each clip, `[batch, 1, 1]`; zeros at its end are padding."""
    places = graph.first(graph.constant(np.arange(1, c.window_samples + 1)), graph.size(window, 1), 0)
    length = graph("ReduceMax", graph("Where", graph("Equal", window, 0.0), [0], places), [1], keepdims=1)
    return graph("Unsqueeze", graph("Add", graph("Div", length, [c.hop_length]), [1]), [2])


def _inside(graph: Graph, values: str, count: str, most: int, axis: int = 2) -> str:
    """Return `values` with zeros from number `count` on along the last axis, of at most `most`."""
    places = graph.first(graph.constant(np.arange(most)), graph.size(values, axis), 0)
    mask = graph("Cast", graph("Less", places, count), to=onnx_proto.FLOAT)
    return graph("Mul", values, mask)


class _FrameNetwork:
    """`FrameViT`, from its state dict. Between the blocks, time is the last but one axis."""

    def __init__(self, graph: Graph, config: FrameViTConfig, weights: Weights) -> None:
        self.graph = graph
        self.config = config
        self.layers = _Layers(graph, weights, config.heads, config.dim // config.heads)
        self.weights = weights

    def embedding(self, image: str, frames: str, most: int) -> str:
        """Return the embedding `[batch, embedding_dim]` of images `[batch, n_mels, frames]`, zero behind the clip.

        `frames` `[batch, 1, 1]` is how many of at most `most` belong to the clip.
        """
        g, c = self.graph, self.config
        values = g("Gelu", self._convolution(image, "stem.0", 1))
        values = g("Gelu", self._convolution(_inside(g, values, frames, most), "stem.1", 1, stride=FRAME_STRIDE))
        count = g("Div", g("Add", frames, [FRAME_STRIDE - 1]), [FRAME_STRIDE])  # of tokens, [batch, 1, 1]
        places = g.first(g.constant(np.arange(-(-most // FRAME_STRIDE))), g.size(values, 2), 0)
        real = g("Less", places, count)  # [batch, 1, tokens]
        row = g("Cast", real, to=onnx_proto.FLOAT)
        bias = g("Unsqueeze", g("Where", real, 0.0, -np.inf), [1])
        share = g("Div", row, g("ReduceSum", row, [2], keepdims=1))
        tokens = g.transpose(values, 0, 2, 1)
        column = g.transpose(row, 0, 2, 1)
        parts: list[str] = []
        for index in range(c.depth):
            name = f"blocks.{index}"
            if c.taps:
                heard = g.transpose(g("Mul", tokens, column), 0, 2, 1)
                mixed = self._convolution(heard, f"{name}.convolution", c.taps // 2, group=c.dim)
                tokens = g("Add", tokens, g.transpose(mixed, 0, 2, 1))
            tokens = g("Add", tokens, self.layers.attention(tokens, bias, f"{name}.attention"))
            tokens = g("Add", tokens, self.layers.mlp(tokens, f"{name}.mlp"))
            if index + 1 in c.pooled:
                parts += _mean_and_deviation(g, share, tokens)
        values = g("Concat", *parts, axis=1)  # [batch, parts, dim]
        mean = g("ReduceMean", values, [2], keepdims=1)
        from_mean = g("Sub", values, mean)
        deviation = g("Sqrt", g("ReduceMean", g("Mul", from_mean, from_mean), [2], keepdims=1))
        return g.reshape(g("Div", from_mean, g("Add", deviation, _NORM_EPSILON)), 0, c.embedding_dim)

    def _convolution(self, values: str, name: str, padding: int, *, stride: int = 1, group: int = 1) -> str:
        kernel, bias = self.graph.kernel(self.weights[f"{name}.weight"]), self.weights[f"{name}.bias"]
        return self.graph("Conv", values, kernel, bias, pads=[padding, padding], strides=[stride], group=group)


class _Layers:
    """The layers of a block, from the state dict of its network."""

    def __init__(self, graph: Graph, weights: Weights, heads: int, head_dim: int) -> None:
        self.graph = graph
        self.weights = weights
        self.heads = heads
        self.head_dim = head_dim

    def attention(self, tokens: str, bias: str | None, name: str) -> str:
        """Return what attention adds to the tokens, `[batch, tokens, dim]`."""
        g = self.graph
        normed = self.norm(tokens, f"{name}.norm")
        query, key, value = (self._projected(normed, *each) for each in zip(*self.qkv(name), strict=True))
        query, value = (g.transpose(g.reshape(x, 0, 0, self.heads, self.head_dim), 0, 2, 1, 3) for x in (query, value))
        key = g.transpose(g.reshape(key, 0, 0, self.heads, self.head_dim), 0, 2, 3, 1)
        attended = g("MatMul", self.softmax(g("MatMul", query, key), bias), value)
        joined = g.reshape(g.transpose(attended, 0, 2, 1, 3), 0, 0, self.heads * self.head_dim)
        return self.linear(joined, f"{name}.projection")

    def _projected(self, tokens: str, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64] | None) -> str:
        product = self.graph("MatMul", tokens, self.graph.matrix(weight.T))
        return product if bias is None else self.graph("Add", product, bias)

    def qkv(self, name: str) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.float64] | None]]:
        """Return weights `[heads * head_dim, dim]` and biases of queries, with the scale in them, keys and values."""
        query, key, value = np.split(self.weights[f"{name}.qkv.weight"].astype(np.float64), 3)
        scale = self.head_dim**-0.5
        if f"{name}.qkv.bias" not in self.weights:
            return [query * scale, key, value], [None, None, None]
        of_query, of_key, of_value = np.split(self.weights[f"{name}.qkv.bias"].astype(np.float64), 3)
        return [query * scale, key, value], [of_query * scale, of_key, of_value]

    def softmax(self, logits: str, bias: str | None) -> str:
        """Return the shares of the keys, whose logits get `bias` before."""
        return self.graph("Softmax", logits if bias is None else self.graph("Add", logits, bias), axis=-1)

    def mlp(self, tokens: str, name: str) -> str:
        """Return what the MLP adds to the tokens."""
        hidden = self.linear(self.norm(tokens, f"{name}.norm"), f"{name}.hidden")
        return self.linear(self.graph("Gelu", hidden), f"{name}.output")

    def linear(self, tokens: str, name: str) -> str:
        """Return `[batch, tokens, outputs]`."""
        product = self.graph("MatMul", tokens, self.graph.matrix(self.weights[f"{name}.weight"].T))
        return self.graph("Add", product, self.weights[f"{name}.bias"])

    def norm(self, tokens: str | npt.ArrayLike, name: str) -> str:
        """Return the tokens, each with mean 0 and deviation 1 before scale and bias."""
        scale, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.graph("LayerNormalization", tokens, scale, bias, axis=-1, epsilon=_NORM_EPSILON)


def _mean_and_deviation(graph: Graph, weights: str, tokens: str) -> tuple[str, str]:
    """Return weighted mean and standard deviation of `[batch, tokens, dim]`, each `[batch, rows of weights, dim]`."""
    mean = graph("MatMul", weights, tokens)
    from_mean = graph("Sub", tokens, mean)
    variance = graph("MatMul", weights, graph("Mul", from_mean, from_mean))
    return mean, graph("Sqrt", graph("Add", variance, STATISTICS_EPSILON))


class _Network:
    """The vision transformer, from its state dict."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: Weights) -> None:
        self.graph = graph
        self.config = config
        self.weights = weights
        self.layers = _Layers(graph, weights, config.heads, config.head_dim)

    def embedding(self, image: str) -> str:
        """Return the embedding `[batch, embedding_dim]` of images `[batch, 1, height, width]`."""
        g = self.graph
        tokens = self.layers.norm(self._patches(image), "patch_embedding.input_norm")
        tokens = self.layers.norm(
            self.layers.linear(tokens, "patch_embedding.projection"), "patch_embedding.output_norm"
        )
        one = g("Concat", g.size(tokens, 0), [1, 1], axis=0)
        tokens = g("Concat", g("Expand", self.weights["cls_token"], one), tokens, axis=1)
        for index in range(self.config.depth):
            tokens = g("Add", tokens, self.layers.attention(tokens, None, f"blocks.{index}.attention"))
            tokens = g("Add", tokens, self.layers.mlp(tokens, f"blocks.{index}.mlp"))
        return g.reshape(self.layers.norm(g.first(tokens, [1], 1), "norm"), 0, self.config.dim)

    def _patches(self, image: str) -> str:
        """Return `[batch, patches, patch_dim]`; values are ordered row, column within the patch, channel."""
        g, c = self.graph, self.config
        if c.stem == "conv6":
            for index in range(sum(name.startswith("stem.") for name in self.weights) // 2):
                kernel, bias = (self.weights[f"stem.convolutions.{index}.{part}"] for part in ("weight", "bias"))
                image = g("Conv", image, g.kernel(kernel), bias, pads=[1, 1, 1, 1])
                scale, offset = np.ones(len(bias)), np.zeros(len(bias))
                image = g("Gelu", g("InstanceNormalization", image, scale, offset, epsilon=_NORM_EPSILON))
        if c.coordinates:
            height, width = c.image_height, c.image_width
            rows = np.broadcast_to(np.linspace(-1.0, 1.0, height)[:, None], (height, width))
            columns = np.broadcast_to(np.linspace(-1.0, 1.0, width), (height, width))
            batch = g("Concat", g.size(image, 0), [1, 1, 1], axis=0)
            image = g("Concat", image, g("Expand", np.stack((rows, columns))[None], batch), axis=1)
        grid = g.reshape(image, 0, c.channels, c.image_height // c.patch_height, c.patch_height, -1, c.patch_width)
        return g.reshape(g.transpose(grid, 0, 2, 4, 3, 5, 1), 0, -1, c.patch_dim)
