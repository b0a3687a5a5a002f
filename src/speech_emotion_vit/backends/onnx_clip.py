"""All that `EmotionClassifier.predict` does of a clip as one ONNX graph: is anybody speaking, windows, their mean.

Around the network's graph stands that of the speech detector, with standard operators too. Windows and stretches of
the detector are taken one after the other, in loops, so that a long recording needs little memory beside its samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..audio import speech
from ..audio.reader import OFFSET_LEAST, OFFSET_SHARE
from ..errors import ConfigError
from ..model.config import ClassifierConfig, FrontendConfig
from . import onnx_proto
from .onnx_graph import EMBEDDING, INPUT, PROBABILITIES, Graph, Weights, answer

SPEECH = "speech"

_AT_ONCE = 512  # frames of the detector, 8 s, per turn of its loop
_LITTLE = 1e-6  # seconds: weight of a window without speech, where it is all there is


def build_clip_model(
    config: ClassifierConfig, weights: Weights, *, int8: bool = False, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the content of an ONNX file: a clip `[samples]` to probabilities, embedding and seconds of speech.

    Args:
        config: labels, temperature, front-end and network.
        weights: the network's state dict in float32, complete and of the right shapes.
        int8: as in `onnx_graph.build_model`; the speech detector stays as it is.
        metadata: properties of the file.

    Raises:
        ConfigError: the model hears another rate than the speech detector.
    """
    c = config.frontend
    if c.sampling_rate != speech.RATE:
        raise ConfigError(
            f"the model hears {c.sampling_rate} Hz, and the file could not tell speech there: export one that hears "
            f"{speech.RATE} Hz, or use EmotionClassifier(backend='onnx')"
        )
    graph = Graph(int8=int8, half=True)
    samples, spoken, seconds = _spoken(graph, c)
    length = graph.size(samples, 0)
    size = graph("Min", length, [c.window_samples])
    somebody = graph("Cast", graph("Greater", seconds, 0.0), to=onnx_proto.FLOAT)
    last = graph("Sub", length, size)  # start of the last window, which is aligned to the end
    behind = graph.constant([0]) if c.long_clips == "truncate" else _rounded_up(graph, last, c.hop_samples)

    def window(index: str) -> tuple[str, str, str]:
        start = graph("Min", graph("Mul", index, [c.hop_samples]), last)
        end = graph("Add", start, size)
        heard = _without_offset(graph, graph("Slice", samples, start, end, [0]), somebody)
        weight = graph("ReduceSum", graph("Slice", spoken, start, end, [0]), [0], keepdims=1)
        return *answer(graph, config, weights, graph("Unsqueeze", heard, [0])), weight

    probabilities, embeddings, weight = graph.each(graph("Add", behind, [1]), window)
    weight = graph("Max", weight, _LITTLE * c.sampling_rate)  # [windows, 1]
    share = graph("Div", weight, graph("ReduceSum", weight, [0], keepdims=1))
    for name, rows, width in (
        (PROBABILITIES, probabilities, len(config.labels)),
        (EMBEDDING, embeddings, config.model.embedding_dim),
    ):
        mean = graph("ReduceSum", graph("Mul", graph.reshape(rows, -1, width), share), [0], keepdims=0)
        if name == PROBABILITIES:  # 0 where nobody speaks
            mean = graph("Mul", mean, somebody)
        graph("Identity", mean, outputs=[name])
    graph("Identity", seconds, outputs=[SPEECH])
    return graph.model(
        inputs=[onnx_proto.value(INPUT, ["samples"])],
        outputs=[
            onnx_proto.value(PROBABILITIES, [len(config.labels)]),
            onnx_proto.value(EMBEDDING, [config.model.embedding_dim]),
            onnx_proto.value(SPEECH, []),
        ],
        metadata=metadata or {},
    )


def _spoken(g: Graph, c: FrontendConfig) -> tuple[str, str, str]:
    """Return what is to be heard of the clip, `[kept samples]`, which of it is speech, and the seconds of speech, `[]`.

    Where nobody speaks, the beginning of the clip is to be heard.
    """
    length = g.size(INPUT, 0)
    outputs = _rounded_up(g, length, speech.STEP)
    missing = g("Sub", g("Mul", outputs, [speech.STEP]), length)  # samples of the last output that are none
    padded = g("Pad", INPUT, g("Concat", [0], missing, axis=0))
    rows = g.reshape(padded, -1, speech.STEP)
    real = g.reshape(g("Pad", _ones(g, length), g("Concat", [0], missing, axis=0)), -1, speech.STEP)
    spoken, kept = _decide(g, _speech_probability(g, rows, length, outputs), rows, outputs)  # [outputs] of 0 and 1
    spoken_samples = g("Mul", real, g("Unsqueeze", spoken, [1]))
    seconds = g("Div", g("ReduceSum", spoken_samples, keepdims=0), float(speech.RATE))

    places = g("Range", _scalar(g, 0), g("Squeeze", outputs), _scalar(g, 1))
    beginning = g("Less", places, [-(-c.window_samples // speech.STEP)])
    nobody = g("Not", g("Greater", seconds, 0.0))
    taken = g("Or", g("Greater", kept, 0.0), g("And", nobody, beginning))
    taken_rows, taken_spoken = (g.reshape(g("Compress", each, taken, axis=0), -1) for each in (rows, spoken_samples))
    end_taken = g("Cast", g("Slice", taken, [-1], [np.iinfo(np.int64).max], [0]), to=onnx_proto.INT64)
    count = g("Sub", g.size(taken_rows, 0), g("Mul", missing, end_taken))
    most = g("Where", nobody, [c.window_samples], [np.iinfo(np.int64).max])
    count = g("Min", count, most)
    return g.first(taken_rows, count, 0), g.first(taken_spoken, count, 0), seconds


def _speech_probability(g: Graph, rows: str, length: str, outputs: str) -> str:
    """Return what `speech.speech_probability` does, `[outputs]`, of a clip `[outputs, samples]`, zeros at its end."""
    mean = g("ReduceMean", g("ReduceMean", rows, [1], keepdims=1), keepdims=0)  # in two steps it is exact enough
    whole = g("Cast", g("Mul", outputs, [speech.STEP]), to=onnx_proto.FLOAT)
    mean = g("Mul", mean, g("Div", whole, g("Cast", length, to=onnx_proto.FLOAT)))
    flow = g.first(g("Sub", g.reshape(rows, -1), mean), length, 0)

    frames = g("Mul", outputs, [2])
    at_once = g("Min", frames, [_AT_ONCE])
    turns = g("Div", g("Sub", g("Add", frames, at_once), [1]), at_once)
    lead = (speech.FRAME - speech.HOP) // 2
    needed = g("Add", g("Mul", g("Mul", turns, at_once), [speech.HOP]), [speech.FRAME - speech.HOP - lead])
    flow = g("Pad", flow, g("Concat", [lead], g("Sub", needed, length), axis=0))
    basis = _spectral_basis(g)
    bank = speech.filterbank()

    def levels(turn: str) -> list[str]:
        first = g("Mul", g("Mul", turn, at_once), [speech.HOP])
        count = g("Add", g("Mul", at_once, [speech.HOP]), [speech.FRAME - speech.HOP])
        piece = g("Slice", flow, first, g("Add", first, count), [0])
        spectrum = g("Conv", g("Unsqueeze", piece, [0, 1]), basis, strides=[speech.HOP])  # [1, 2 * bins, frames]
        power = g.reshape(g("Mul", spectrum, spectrum), 2, len(bank), -1)
        power = g("ReduceSum", power, [0], keepdims=0)
        return [g("Log", g("Add", g("MatMul", g.transpose(power, 1, 0), bank), 1e-25))]

    (level,) = g.each(turns, levels)
    level = g("Mul", g.first(g.reshape(level, -1, speech.BANDS), frames, 0), 1 / np.log(10.0))  # [frames, bands]
    loudest = g("ReduceMax", level, [1], keepdims=1)
    reach = speech.LOUDEST_REACH
    near = g("Unsqueeze", g.transpose(loudest, 1, 0), [0])
    near = g("MaxPool", near, kernel_shape=[2 * reach + 1], pads=[reach, reach])
    loudest = g.reshape(near, -1, 1)
    image = g("Div", g("Relu", g("Add", g("Sub", level, loudest), speech.DECADES)), 3.0)
    image = g("Where", g("Less", loudest, speech.SILENCE), 0.0, image)
    around = 2 * speech.CONTEXT
    behind = g("Add", g("Sub", g("Mul", turns, at_once), frames), [around])
    image = g("Pad", image, g("Concat", [around, 0], behind, [0], axis=0))

    def probabilities(turn: str) -> list[str]:
        first = g("Mul", turn, at_once)
        last = g("Add", first, g("Add", at_once, [2 * around]))
        return [_network(g, g("Unsqueeze", g("Slice", image, first, last, [0]), [0, 1]))]

    (probability,) = g.each(turns, probabilities)
    return g.first(g.reshape(probability, -1), outputs, 0)


def _network(g: Graph, image: str) -> str:
    """Return the probability `[outputs]` of all moments of a spectrogram `[1, 1, time, bands]` with their context."""
    w = speech.load_weights()
    channels1, channels2, width = len(w.stem1_bias), len(w.stem2_bias), len(w.project_bias)
    stem1 = w.stem1.reshape(3, 5, 1, channels1).transpose(3, 2, 0, 1)
    stem2 = w.stem2.reshape(4, 3, channels1, channels2).transpose(3, 2, 0, 1)
    hidden = g("Relu", g("Conv", image, stem1, w.stem1_bias, strides=[1, 2], pads=[0, 2, 0, 2]))
    hidden = g("Relu", g("Conv", hidden, stem2, w.stem2_bias, strides=[2, 2], pads=[0, 1, 0, 1]))
    project = w.project.reshape(-1, channels2, width).transpose(2, 1, 0)[:, :, None]  # all bands at once
    hidden = g("Squeeze", g("Relu", g("Conv", hidden, project, w.project_bias)), [3])  # [1, width, time]
    for dilation, weight, bias in zip(speech.DILATIONS, w.blocks, w.blocks_bias, strict=True):
        kernel = weight.reshape(3, width, width).transpose(2, 1, 0)
        inner = g("Slice", hidden, [dilation], [-dilation], [2])
        hidden = g("Add", inner, g("Relu", g("Conv", hidden, kernel, bias, dilations=[dilation])))
    return g("Sigmoid", g.reshape(g("Conv", hidden, w.head[None, :, None], w.head_bias), -1))


def _spectral_basis(g: Graph) -> str:
    """Return cosines and sines under the window, `[2 * bins, 1, samples]`; made as the file is loaded, for size."""
    samples, bins = np.arange(speech.FRAME), np.arange(speech.FRAME // 2 + 1)
    angles = g("Mod", g("Mul", bins[:, None], samples[None]), [speech.FRAME])
    circle = 2.0 * np.pi * samples / speech.FRAME
    parts = [g("Gather", table, angles) for table in (np.cos(circle), np.sin(circle))]
    basis = g("Mul", g("Concat", *parts, axis=0), speech.analysis_window())
    return g("Unsqueeze", basis, [1])


def _decide(g: Graph, probability: str, rows: str, outputs: str) -> tuple[str, str]:
    """Return which outputs `[outputs]` are speech and which stay with it, as 0 and 1, as `speech.find_speech` does.

    `rows` are the samples `[outputs, samples]`.
    """

    def flags(condition: str) -> str:
        return g("Cast", condition, to=onnx_proto.FLOAT)

    def none(values: str) -> str:
        return g("Sub", 1.0, values)

    def any_near(values: str, reach: int) -> str:
        return g("MaxPool", values, kernel_shape=[2 * reach + 1], pads=[reach, reach])

    row = g("Unsqueeze", probability, [0, 1])
    likely = flags(g("Greater", row, speech.THRESHOLD))
    near = g("Conv", likely, np.ones((1, 1, 2 * speech.NEAR + 1)), pads=[speech.NEAR, speech.NEAR])
    least = g("Cast", g("Min", _rounded_up(g, outputs, 2), [speech.LEAST]), to=onnx_proto.FLOAT)
    sure = g("Mul", likely, flags(g("Greater", near, g("Sub", least, 0.5))))  # whole numbers, nearly
    spoken = g("Mul", flags(g("Greater", row, speech.THRESHOLD_BESIDE)), any_near(sure, speech.BESIDE))
    kept = any_near(spoken, speech.MARGIN)
    centred = g("Sub", rows, g("ReduceMean", rows, [1], keepdims=1))
    power = g.reshape(g("ReduceMean", g("Mul", centred, centred), [1], keepdims=1), 1, 1, -1)
    power = g("Mul", power, flags(g("Greater", power, speech.LEAST_POWER)))
    pause = any_near(none(any_near(kept, speech.PAUSE)), speech.PAUSE)
    background = g("Where", g("Greater", pause, 0.0), g("Neg", power), float(np.finfo(np.float32).min))
    background = g("Neg", any_near(background, speech.PAUSE))
    quiet = flags(g("Less", g("Div", power, speech.QUIET), background))
    loud = g("Mul", kept, none(g("Mul", any_near(pause, speech.PAUSE), quiet)))
    kept = g("Mul", kept, none(any_near(none(any_near(loud, speech.BRIDGE)), speech.BRIDGE)))
    return g.reshape(g("Mul", spoken, kept), -1), g.reshape(kept, -1)


def _without_offset(g: Graph, samples: str, somebody: str) -> str:
    """Return what `reader.without_offset` does of samples `[samples]`, or the same ones where nobody speaks."""
    exact = g("Cast", samples, to=onnx_proto.DOUBLE)
    mean = g("ReduceMean", exact, keepdims=1)
    from_mean = g("Sub", exact, mean)
    variance = g("ReduceMean", g("Mul", from_mean, from_mean), keepdims=1)
    mean, variance = (g("Cast", each, to=onnx_proto.FLOAT) for each in (mean, variance))
    least = g("Max", g("Mul", g("Sqrt", variance), OFFSET_SHARE), OFFSET_LEAST)
    return g("Sub", samples, g("Mul", g("Where", g("Greater", g("Abs", mean), least), mean, 0.0), somebody))


def _rounded_up(g: Graph, number: str, divisor: int) -> str:
    """Return a whole number divided by another, `[1]`, rounded up."""
    return g("Div", g("Add", number, [divisor - 1]), [divisor])


def _ones(g: Graph, length: str) -> str:
    return g("Expand", 1.0, length)


def _scalar(g: Graph, number: int) -> str:
    return g.constant(np.int64(number))
