"""Operations, front-ends and how close the network comes to the machine's matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .machine import matrix_rate
from .worker import repeat

LENGTHS = (0.5, 1.0, 2.0, 2.5, 3.0, 4.0)


def multiply_accumulates(call: Callable[[], object]) -> int:
    """Return the multiply-accumulates of the matrix products and convolutions in a call."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The fused attention is one operator the counter may not know; as plain products it is counted.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        call()
    return int(counter.get_total_flops()) // 2


def network_costs(name: str, speech: np.ndarray, budget: float) -> list[dict[str, float]]:
    """Return, per clip length, what the network costs in operations and time."""
    import torch

    from speech_emotion_vit import EmotionClassifier

    classifier = EmotionClassifier(name, device="cpu")
    network, frontend = classifier.network, classifier.frontend
    graph = EmotionClassifier(name, backend="onnx").backend
    rows = []
    for seconds in LENGTHS:
        waveform = torch.from_numpy(speech[None, : round(seconds * 16_000)])
        image = frontend(waveform)
        needed = multiply_accumulates(lambda image=image: network.embed(image))  # type: ignore[misc]
        with torch.inference_mode():
            times = repeat(lambda image=image: network.embed(image), budget=budget, least=5, most=300)  # type: ignore[misc]
        window = waveform.numpy()
        whole = repeat(lambda window=window: graph.infer(window), budget=budget, least=5, most=300)  # type: ignore[misc]
        rows.append(
            {
                "seconds": seconds,
                "needed": needed,
                "time": median(times),
                "whole": median(whole),
                "bound": needed / matrix_rate(),
            }
        )
    return rows


def int8(name: str, paths: Sequence[str], folder: Path, budget: float) -> dict[str, Any]:
    """Return what the 8-bit export of a model gives in size and time, and costs in agreement over `paths`.

    Both files are run on the same waveforms by ONNX Runtime, a clip at a time, the first 4 s of each.
    """
    import onnxruntime
    import soundfile

    from speech_emotion_vit.backends.export import export_onnx

    sessions, sizes = [], []
    for small in (False, True):
        path = export_onnx(name, folder / f"{name}-{small}.onnx", int8=small)
        sizes.append(path.stat().st_size / 1e6)
        sessions.append(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
    answers: list[list[np.ndarray]] = [[], []]
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=64_000)
        if rate != 16_000 or not samples.any():
            continue
        if not sessions[0].run(["speech"], {"waveform": samples.mean(axis=1)})[0]:
            continue
        for session, found in zip(sessions, answers, strict=True):
            found.append(session.run(["probabilities"], {"waveform": samples.mean(axis=1)})[0])
    full, small = (np.stack(found) for found in answers)
    clip = soundfile.read(paths[0], dtype="float32")[0][:40_000]
    # In turns, so that what else the machine does falls on both.
    times: list[list[float]] = [[], []]
    for _ in range(5):
        for session, found in zip(sessions, times, strict=True):
            found += repeat(
                lambda session=session: session.run(["probabilities"], {"waveform": clip}),  # type: ignore[misc]
                budget=budget / 5,
                least=3,
                most=100,
            )
    return {
        "clips": len(full),
        "sizes": sizes,
        "times": [median(found) for found in times],
        "agreement": float((full.argmax(axis=1) == small.argmax(axis=1)).mean()),
        "mean": float(np.abs(full - small).mean()),
        "largest": float(np.abs(full - small).max()),
    }


def streaming(name: str, speech: np.ndarray, budget: float) -> list[dict[str, Any]]:
    """Return how long a push takes that completes a window, and one that does not, for chunks of 20 ms.

    Asserts that the segments are those of `timeline`.
    """
    from speech_emotion_vit import EmotionClassifier

    rows = []
    for backend in ("torch", "onnx"):
        classifier = EmotionClassifier(name, backend=backend)  # type: ignore[arg-type]
        heard = np.resize(speech, 10 * 16_000)
        expected = classifier.timeline(heard, sampling_rate=16_000, hop=0.5).segments
        answering: list[float] = []
        waiting: list[float] = []
        started = time.perf_counter()
        while not answering or time.perf_counter() - started < budget:
            stream, segments = classifier.stream(16_000, hop=0.5), []
            for start in range(0, len(heard), 320):
                before = time.perf_counter()
                found = stream.push(heard[start : start + 320])
                (answering if found else waiting).append(time.perf_counter() - before)
                segments += found
            segments += stream.flush()
            assert [segment.start for segment in segments] == [segment.start for segment in expected]
            for segment, wanted in zip(segments, expected, strict=True):
                for label, probability in wanted.probabilities.items():
                    assert abs(segment.probabilities[label] - probability) < 1e-5, "the stream differs from timeline"
        rows.append({"backend": backend, "answering": answering, "waiting": waiting})
    return rows


def frontends(speech: np.ndarray, budget: float) -> list[dict[str, Any]]:
    """Return the time of log-Mels of 2.5 s; asserts that ours is librosa's where both compute the same."""
    import torch

    from speech_emotion_vit import FrontendConfig, LogMel

    waveform = speech[:40_000]
    frontend, coarse = LogMel(), LogMel(FrontendConfig.frames())
    tensor = torch.from_numpy(waveform)[None]
    with torch.inference_mode():
        power = frontend.mel_power(tensor)[0].numpy()
        rows = [
            {
                "title": "this package, spectrum to Mel (1024 points, hop 64, 128 bands)",
                "frames": len(power),
                "times": repeat(lambda: frontend.mel_power(tensor), budget=budget, least=5, most=300),
            },
            {
                "title": "this package, waveform to image, hop 64 as the paper",
                "frames": len(power),
                "times": repeat(lambda: frontend(tensor), budget=budget, least=5, most=300),
            },
            {
                "title": "this package, waveform to image, hop 160, 80 bands, as `base`",
                "frames": coarse.mel_power(tensor).shape[1],
                "times": repeat(lambda: coarse(tensor), budget=budget, least=5, most=300),
            },
        ]
    try:
        import librosa
    except ImportError:
        rows.append({"title": "librosa", "missing": "not installed"})
    else:

        def mel() -> np.ndarray:
            spectrogram: np.ndarray = librosa.feature.melspectrogram(
                y=waveform, sr=16_000, n_fft=1024, win_length=512, hop_length=64, window="hamming", center=True,
                pad_mode="constant", n_mels=128, fmax=8000.0,
            )  # fmt: skip
            return spectrogram

        theirs = mel()  # [bands, frames], each frame in the middle of 1024 samples
        shared = slice(4, theirs.shape[1] - 4)
        error = np.abs(10 * np.log10(theirs.T[shared] + 1e-8) - 10 * np.log10(power[shared][:] + 1e-8)).max()
        assert error < 0.1, f"librosa's log-Mel differs by {error} dB"
        rows.append(
            {
                "title": "librosa, the same spectrum to Mel",
                "frames": theirs.shape[1],
                "times": repeat(mel, budget=budget, least=5, most=300),
            }
        )
    try:
        import transformers
    except ImportError:
        rows.append({"title": "transformers feature extractors", "missing": "not installed"})
        return rows
    for name, note in (
        ("Wav2Vec2FeatureExtractor", "no spectrum: mean and variance only"),
        ("ASTFeatureExtractor", "128 bands, hop 160, padded to 10.24 s"),
        ("WhisperFeatureExtractor", "80 bands, hop 160, padded to 30 s"),
        ("SeamlessM4TFeatureExtractor", "80 bands, hop 160"),
    ):
        extractor = getattr(transformers, name)()

        def extract(extractor: Any = extractor) -> Any:
            return extractor(waveform, sampling_rate=16_000, return_tensors="pt")

        rows.append(
            {
                "title": f"transformers {name} ({note})",
                "frames": None,
                "times": repeat(extract, budget=budget, least=5, most=300),
            }
        )
    return rows


def gpu(names: list[str]) -> list[dict[str, Any]] | None:
    """Return clips per second from waveform tensors of 2.5 s at batch 1024, None without a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return None
    from speech_emotion_vit import EmotionClassifier

    rows = []
    waveform = torch.randn(1024, 40_000, device="cuda") * 0.1
    for name in names:
        classifier = EmotionClassifier(name, device="cuda")
        for dtype in (torch.float32, torch.bfloat16):

            def run(classifier: Any = classifier, dtype: Any = dtype) -> None:
                with torch.inference_mode():
                    image = classifier.frontend(waveform)
                    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                        classifier.network.head(classifier.network.embed(image))
                torch.cuda.synchronize()

            rows.append({"title": name, "dtype": str(dtype).removeprefix("torch."), "rate": 1024 / median(_times(run))})
    rows += _gpu_peers(waveform)
    return rows


def _times(call: Callable[[], object]) -> list[float]:
    return repeat(call, budget=5.0, least=5, most=100)


def _gpu_peers(waveform: Any) -> list[dict[str, Any]]:
    import torch

    try:
        import transformers
    except ImportError:
        return [{"title": "transformers", "dtype": "", "rate": None}]
    from .subjects import _wav2vec2_base, _wav2vec2_large

    rows: list[dict[str, Any]] = []
    for title, config in (("wav2vec2-base", _wav2vec2_base), ("wav2vec2-large", _wav2vec2_large)):
        model = transformers.AutoModelForAudioClassification.from_config(config(transformers)).cuda().eval()
        for dtype in (torch.float32, torch.bfloat16):

            def run(model: Any = model, dtype: Any = dtype) -> None:
                with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                    for part in waveform.split(128):  # 1024 at once need more memory than most devices have
                        model(part)
                torch.cuda.synchronize()

            rows.append(
                {"title": title, "dtype": str(dtype).removeprefix("torch."), "rate": 1024 / median(_times(run))}
            )
        del model
    return rows
