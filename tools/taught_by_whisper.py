"""Make the models that stand on Whisper base's encoder, its first blocks or a student of it, with heads of their own.

python tools/taught_by_whisper.py --data DIR --teacher DIR             the encoder cut behind its fourth block: `large`
python tools/taught_by_whisper.py --data DIR --student FOLDER          a student that was matched to it: `base`

DIR of --data holds the corpora, each in a folder of its name; that of --teacher the encoder as `openai/whisper-base`
has it. Every clip is heard once, as ``predict`` hears it (about ten minutes a corpus of CREMA-D's size on one core);
what was computed stays in --work, and the command goes on from there. Then, in seconds:

* protocol ``corpus``: a head from CREMA-D and EmoDB, tested on every corpus but these; from one of the two, tested on
  the other; and every corpus left out in turn of all;
* protocol ``speaker``: CREMA-D's official test speakers, and EmoDB with each speaker left out in turn;
* the temperature, from the left-out corpora of the first kind, and its error with that of the other ones;
* the head that ships, from CREMA-D without its test speakers and EmoDB; and one of eight labels for `research`, from
  all corpora.

The weights go to the package, the records into weights_manifest.json, the numbers to the terminal.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from speech_emotion_vit import ClassifierConfig, FrameViT, FrameViTConfig, FrontendConfig
from speech_emotion_vit.backends.torch import TorchBackend
from speech_emotion_vit.batch import Batcher
from speech_emotion_vit.model.config import WEIGHTS_FILE
from speech_emotion_vit.training.data.corpora import CORPORA, FREE, LABELLED, Utterance
from speech_emotion_vit.training.data.protocols import parts_to_score
from speech_emotion_vit.training.fit.teacher import CREDIT, LICENSE, read_teacher
from speech_emotion_vit.training.score.metrics import Scores, fit_temperature, score_clips
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_checkpoint
from speech_emotion_vit.weights.manifest import MANIFEST_FILE, Metric, WeightEntry, load_manifest, write_manifest
from speech_emotion_vit.weights.resolve import WEIGHTS_FOLDER, sha256_file

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ROOT = Path(__file__).resolve().parent.parent
SIX = CORPORA["crema-d"].labels
EIGHT = tuple(sorted({label for name in LABELLED for label in CORPORA[name].labels}))
SCALE = 10.0  # of the logits, beside regression on 0 and 1: temperatures are then near 1
PENALTY = 1.0  # of squared weights, beside standardised values: of 0.3, 1 and 3 the best on corpora left out
LOUDEST = 1.6  # decades of power of the loudest band of a clip at Whisper's level, the mean over the corpora
CHUNK = 200  # clips between two files of what was computed


def cut_encoder(tensors: dict[str, Tensor], labels: Sequence[str]) -> FrameViT:
    """Return Whisper's first four blocks as a `FrameViT`: the same weights, but for the scale of what comes in.

    Whisper takes (decades + 4) / 4 of a clip at a peak of 0.9, and this package's image is 1 + decades / 8 below the
    loudest value: Whisper's is twice the image and LOUDEST / 4 - 1, which goes into the first convolution.
    """
    network = FrameViT(FrameViTConfig.large(len(labels)))
    state = network.state_dict()
    for number in (1, 2):
        for part in ("weight", "bias"):
            state[f"stem.{number - 1}.{part}"] = tensors[f"conv{number}.{part}"].clone()
    state["stem.0.bias"] += (LOUDEST / 4 - 1) * state["stem.0.weight"].sum(dim=(1, 2))
    state["stem.0.weight"] *= 2
    state["positions"] = tensors["embed_positions.weight"][: network.config.positions]
    names = {
        "attention.norm": "self_attn_layer_norm",
        "attention.projection": "self_attn.out_proj",
        "mlp.norm": "final_layer_norm",
        "mlp.hidden": "fc1",
        "mlp.output": "fc2",
    }
    for block in range(network.config.depth):
        ours, theirs = f"blocks.{block}", f"layers.{block}"
        for name, other in names.items():
            for part in ("weight", "bias"):
                state[f"{ours}.{name}.{part}"] = tensors[f"{theirs}.{other}.{part}"]
        weights = [tensors[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv"]
        biases = [tensors[f"{theirs}.self_attn.{part}_proj.bias"] for part in "qv"]
        state[f"{ours}.attention.qkv.weight"] = torch.cat(weights)
        state[f"{ours}.attention.qkv.bias"] = torch.cat((biases[0], torch.zeros_like(biases[0]), biases[1]))
    network.load_state_dict(state)
    return network


def embed(backend: TorchBackend, clips: Sequence[Utterance], work: Path) -> Floats:
    """Return the embeddings `[clips, dim]` of clips as ``predict`` hears them."""
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for first in tqdm(range(0, len(clips), CHUNK), unit_scale=CHUNK, unit="clip"):
        file = work / f"{first}.npy"
        if not file.exists():
            batch = Batcher(backend, sampling_rate=None, vad_filter=True, batch_size=16, threads=2)
            rows = [clip.means()[1] for clip in batch.run([each.path for each in clips[first : first + CHUNK]])]
            temporary = file.with_suffix(".part.npy")
            np.save(temporary, np.stack(rows))
            temporary.replace(file)
        found.append(np.load(file))
    return np.concatenate(found).astype(np.float64)


class Corpora:
    """All clips, what the network makes of them, and which of them a head may hear."""

    def __init__(self, clips: Sequence[Utterance], values: Floats, labels: Sequence[str]) -> None:
        self.clips, self.values, self.labels = clips, values, labels
        self.corpus = np.array([clip.corpus for clip in clips])
        self.speaker = np.array([clip.speaker for clip in clips])
        self.target = np.array([labels.index(clip.label) if clip.label in labels else -1 for clip in clips])
        tests = {speaker for corpus in CORPORA.values() for speaker in corpus.test_speakers}
        validation = {speaker for corpus in CORPORA.values() for speaker in corpus.validation_speakers}
        sound = np.array([clip.id not in CORPORA[clip.corpus].defects for clip in clips])
        self.known = (self.target >= 0) & sound
        self.test = np.array([speaker in tests for speaker in self.speaker])
        self.validation = np.array([speaker in validation for speaker in self.speaker])

    def of(self, names: Sequence[str]) -> Flags:
        """Return which clips are of these corpora and of one of the labels."""
        flags: Flags = np.isin(self.corpus, names) & self.known
        return flags

    def head(self, heard: Flags) -> tuple[Floats, Floats]:
        """Return weight `[labels, dim]` and bias `[labels]` of ridge regression; labels and corpora weigh alike."""
        x, y = self.values[heard], self.target[heard]
        _, cell = np.unique(np.stack([self.corpus[heard], y.astype(str)]), axis=1, return_inverse=True)
        share = 1.0 / np.bincount(cell.reshape(-1))[cell.reshape(-1)]
        share /= share.sum()
        centre, spread = share @ x, x.std(axis=0) + 1e-6
        z = (x - centre) / spread
        targets = np.eye(len(self.labels))[y]
        mean = share @ targets
        inner = (z * share[:, None]).T @ z
        inner[np.diag_indices_from(inner)] += PENALTY
        weight = np.linalg.solve(inner, (z * share[:, None]).T @ (targets - mean)) / spread[:, None]
        return weight.T, mean - centre @ weight

    def answers(self, head: tuple[Floats, Floats], tested: Flags) -> Floats:
        """Return logits `[tested, labels]`; labels that the corpus of a clip has not cannot be the answer."""
        weight, bias = head
        logits = SCALE * (self.values[tested] @ weight.T + bias)
        for name in set(self.corpus[tested]):
            outside = [i for i, label in enumerate(self.labels) if label not in CORPORA[name].labels]
            logits[np.ix_(self.corpus[tested] == name, outside)] = -np.inf
        return logits


def strangers(data: Corpora) -> Iterator[tuple[str, Flags, Floats]]:
    """Yield every corpus with the logits of a head that heard CREMA-D and EmoDB, or the other one of the two."""
    for name in LABELLED:
        heard = [other for other in FREE if other != name]
        tested = data.of([name]) & ~data.test
        yield name, tested, data.answers(data.head(data.of(heard) & ~data.test), tested)


def softmax(logits: Floats, temperature: float) -> Floats:
    """Return probabilities `[clips, labels]`."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def temperature_of(data: Corpora, found: Sequence[tuple[str, Flags, Floats]]) -> float:
    """Return the temperature of corpora that weigh alike: each is repeated to the size of the largest."""
    most = max(tested.sum() for _, tested, _ in found)
    rows = [(np.resize(np.arange(len(logits)), most), tested, logits) for _, tested, logits in found]
    logits = np.concatenate([np.nan_to_num(each[row], neginf=-1e4) for row, _, each in rows])
    targets = np.concatenate([data.target[tested][row] for row, tested, _ in rows])
    return fit_temperature(logits, np.arange(len(logits)), targets)


def metrics(data: Corpora, tested: Flags, chances: Floats, protocol: str, split: str, note: str | None) -> list[Metric]:
    """Return the record of one score, and print it."""
    scores: Scores = score_clips(chances, data.target[tested], data.speaker[tested].tolist(), data.labels)
    common = {"protocol": protocol, "split": split, "clips": scores.clips, "speakers": scores.speakers, "note": note}
    print(
        f"{protocol} {split}: UA {scores.ua:.3f} {scores.ua_interval}, WA {scores.wa:.3f}, ECE {scores.ece:.3f}, "
        f"{scores.clips} clips, {scores.speakers} speakers"
    )
    return [
        Metric(name="UA", value=scores.ua, interval=scores.ua_interval, **common),  # type: ignore[arg-type]
        Metric(name="WA", value=scores.wa, interval=scores.wa_interval, **common),  # type: ignore[arg-type]
        Metric(name="ECE", value=scores.ece, **common),  # type: ignore[arg-type]
    ]


def ship(
    name: str,
    network: FrameViT,
    data: Corpora,
    heard: Flags,
    temperature: float,
    scores: list[Metric],
    facts: dict[str, str],
) -> WeightEntry:
    """Write the weights of a model and return its record; `research` is a head on the other one."""
    weight, bias = data.head(heard)
    config = ClassifierConfig(
        labels=tuple(data.labels),
        model=dataclasses.replace(network.config, num_classes=len(data.labels)),
        frontend=FrontendConfig.frames(),
        temperature=round(temperature, 3),
    )
    model = FrameViT(config.model)
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("head.")}
    state |= {
        "head.weight": torch.from_numpy(SCALE * weight).float(),
        "head.bias": torch.from_numpy(SCALE * bias).float(),
    }
    model.load_state_dict(state)
    backbone = facts.get("backbone")
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    save_checkpoint(path, model, config, backbone=backbone)
    who = {
        corpus: sorted({s.split("/")[1] for s in data.speaker[heard & (data.corpus == corpus)]}) for corpus in LABELLED
    }
    return WeightEntry(
        name=name,
        file=path.name,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        config=config,
        trained_on=facts["trained_on"],
        recipe=facts["recipe"],
        metrics=tuple(scores),
        license=facts["license"],
        citation=facts["citation"],
        heard={corpus: tuple(speakers) for corpus, speakers in who.items() if speakers},
        backbone=backbone,
        backbone_sha256=sha256_file(WEIGHTS_FOLDER / f"{backbone}.safetensors") if backbone else None,
    )


def main(arguments: argparse.Namespace) -> None:
    """Do what the module says."""
    name = "base" if arguments.student else "large"
    if arguments.student:
        network, _ = load_checkpoint(arguments.student / WEIGHTS_FILE)
        assert isinstance(network, FrameViT)
    else:
        network = cut_encoder(read_teacher(arguments.teacher), SIX)
        network.load_state_dict({key: value.half().float() for key, value in network.state_dict().items()})
    config = ClassifierConfig(labels=SIX, model=network.config, frontend=FrontendConfig.frames())
    torch.set_num_threads(arguments.threads)
    clips = [clip for corpus in LABELLED for clip in CORPORA[corpus].read(arguments.data / corpus)]
    backend = TorchBackend(network.requires_grad_(False).eval(), config, torch.device("cpu"))
    values = embed(backend, clips, arguments.work / name)

    six, eight = Corpora(clips, values, SIX), Corpora(clips, values, EIGHT)
    found = list(strangers(six))
    temperature = temperature_of(six, [each for each in found if each[0] not in FREE])
    scores: list[Metric] = []
    for corpus, tested, logits in found:
        others = [each for each in found if each[0] not in (corpus, *FREE)]
        chances = softmax(logits, temperature_of(six, others))
        heard = " and ".join(other for other in FREE if other != corpus)
        note = f"head from {heard} alone; temperature from other corpora"
        for part, chosen in parts_to_score([clip for clip, is_in in zip(clips, tested, strict=True) if is_in]).items():
            ids = {clip.id for clip in chosen}
            inside = np.array([clip.id in ids for clip in clips]) & tested
            scores += metrics(six, inside, chances[inside[tested]], "corpus", part, note)
    free = six.of(FREE) & ~six.test
    print(f"temperature {temperature:.3f}")
    for part, heard, tested in (
        ("validation", six.of(FREE) & ~six.test & ~six.validation, six.of(["crema-d"]) & six.validation),
        ("test", free, six.of(["crema-d"]) & six.test),
    ):
        chances = softmax(six.answers(six.head(heard), tested), temperature)
        scores += metrics(six, tested, chances, "speaker", part, "CREMA-D, official split")
    all_emodb = Corpora(clips, values, CORPORA["emodb"].labels)
    right = all_emodb.of(["emodb"])
    logits = np.zeros((right.sum(), len(all_emodb.labels)))
    for speaker in sorted(set(all_emodb.speaker[right])):
        tested = right & (all_emodb.speaker == speaker)
        logits[tested[right]] = all_emodb.answers(all_emodb.head(right & ~tested), tested)
    own = metrics(
        all_emodb, right, softmax(logits, temperature), "speaker", "cross-validation", "EmoDB, a head of its own"
    )
    method = "Kim & Lee, IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770"
    whisper = "Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022"
    cited = [method, whisper, *(CORPORA[corpus].citation for corpus in FREE)]
    taught = (
        "Whisper base's encoder"
        if arguments.student
        else "the first four blocks of Whisper base's encoder, as they are"
    )
    entry = ship(
        name, network, six, free, temperature, scores + own,
        {
            "trained_on": f"{taught}; head from CREMA-D's 74 training and validation speakers and EmoDB",
            "recipe": "tools/taught_by_whisper.py" + (" --student" if arguments.student else ""),
            "license": f"MIT; stands on {CREDIT}: {LICENSE}; head from CREMA-D (Open Database License 1.0) and EmoDB "
            f"({CORPORA['emodb'].license})",
            "citation": "; ".join(cited),
        },
    )  # fmt: skip
    entries = {name: entry}
    if arguments.research:
        everybody = eight.of(LABELLED) & ~eight.test
        left_out = []
        for corpus in LABELLED:
            tested = eight.of([corpus]) & ~eight.test
            chances = softmax(eight.answers(eight.head(everybody & ~eight.of([corpus])), tested), temperature)
            left_out += metrics(eight, tested, chances, "corpus", corpus, "head from the five other corpora")
        tested = eight.of(["crema-d"]) & eight.test
        chances = softmax(eight.answers(eight.head(everybody), tested), temperature)
        left_out += metrics(eight, tested, chances, "speaker", "test", "CREMA-D, official split")
        entries["research"] = ship(
            "research", network, eight, everybody, temperature, left_out,
            {
                "backbone": name,
                "trained_on": f"the network of {name}; head from {', '.join(CORPORA[c].title for c in LABELLED)}",
                "recipe": "tools/taught_by_whisper.py --research",
                "license": "for research only, as are SAVEE, EMOVO, CASIA and URDU, which its head was trained on",
                "citation": "; ".join([method, whisper, *(CORPORA[corpus].citation for corpus in LABELLED)]),
            },
        )  # fmt: skip
    manifest = load_manifest(ROOT / MANIFEST_FILE)
    default = name if arguments.default else manifest.default
    write_manifest(
        ROOT / MANIFEST_FILE, type(manifest)(default=default, models={**entries, **manifest.models, **entries})
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--teacher", type=Path, help="folder of the encoder; by default it is fetched from the Hub")
    parser.add_argument("--student", type=Path, help="folder of a student that was matched to it")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "taught", help="folder for what was computed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--research", action="store_true", help="make the head of eight labels, too")
    parser.add_argument("--default", action="store_true", help="make it the default model")
    sys.exit(main(parser.parse_args()))
