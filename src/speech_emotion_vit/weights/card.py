"""The model card: README.md of a model folder, with the front matter that the Hub reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, one_line
from ..files import read_text
from ..model.config import ClassifierConfig
from .manifest import Metric, WeightEntry
from .resolve import ResolvedModel

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CARD_FILE = "README.md"
PLACE = "path/to/this/folder"  # stands in a card for where the model is; the name on the Hub takes its place

_MAX_BYTES = 2**20  # of a card
LANGUAGES = {  # ISO 639-1, of the corpora that are spoken in one
    "casia": "zh",
    "crema-d": "en",
    "emodb": "de",
    "emovo": "it",
    "savee": "en",
    "urdu": "ur",
}
_HUB_METRICS = {"UA": "recall", "WA": "accuracy", "macro-F1": "f1"}  # others go by their own name
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")
_TAGS = ["speech-emotion-recognition", "vision-transformer", "log-mel-spectrogram"]


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model card says beside the configuration. What is not known is left out of the card.

    Raises:
        ConfigError: a licence, language or data set is not written as the Hub writes them.
    """

    license: str | None = None
    """As the Hub writes it: ``mit``, ``cc-by-4.0``, ``other``."""
    license_text: str | None = None
    """What else is to be said of the licence."""
    base_model: str | None = None
    """The model on the Hub, ``org/name``, on which it stands."""
    datasets: tuple[str, ...] = ()
    """What it was trained on: data sets of the Hub, or corpora by their names."""
    language: tuple[str, ...] = ()
    """What is spoken in it, ISO 639: ``en``, ``de``."""
    metrics: tuple[Metric, ...] = ()
    """Scores; the first one is the headline."""
    scored_on: str | None = None
    """Name of the data of `metrics`; None takes each one's note."""
    trained_on: str | None = None
    """Recordings and speakers, in words."""
    citation: str | None = None
    """What to cite."""

    def __post_init__(self) -> None:
        for what, value, rule, example in (
            ("a licence", self.license, _IDENTIFIER, "mit, cc-by-4.0 or other"),
            *(("a language", code, re.compile("[a-z]{2,3}"), "en or de") for code in self.language),
            *(("a data set", name, re.compile(r"([\w.-]+/)?[\w.-]+"), "org/name") for name in self.datasets),
            ("a base model", self.base_model, re.compile(r"[\w.-]+/[\w.-]+"), "org/name"),
        ):
            if value is not None and not rule.fullmatch(value):
                raise ConfigError(f"{value[:60]!r} is not how the Hub writes {what}: write it as {example}")


def card_for(
    model: ResolvedModel, config: ClassifierConfig, facts: CardFacts | None = None, *, fitted: bool = False
) -> str:
    """Return the card of a model that has been found: its own, where one lies beside it, or a new one.

    Args:
        model: where it is.
        config: what it is.
        facts: what the card shall say, beside what it says, or is known, already.
        fitted: whether it has another head since, of which its own card says nothing.

    Raises:
        ConfigError: its own card cannot be read.
    """
    given = facts or CardFacts()
    known = _recorded_facts(model.entry) if model.entry else CardFacts(base_model=model.repo_id)
    path = model.weights.with_name(CARD_FILE)
    if model.entry is None and path.exists():
        try:
            own = read_text(path, _MAX_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({one_line(error)}): correct or remove it") from error
        if not fitted:
            return complete_card(own, given)
        known = _facts_below(own, model)
    return write_card(config, replace(known, **{name: value for name, value in vars(given).items() if value}))


def _facts_below(card: str, model: ResolvedModel) -> CardFacts:
    """Return what the card of a model says that is true of another head on its network, too."""
    data = vars(_front_matter(card)[0])
    licence, below = _texts(data.get("license")), _texts(data.get("base_model"))
    return CardFacts(
        license=licence[0] if licence else None,
        license_text=f"The network is that of {model.name}, whose card says more of its licence",
        base_model=model.repo_id or (below[0] if below else None),
        datasets=_texts(data.get("datasets")),
        language=_texts(data.get("language")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    """Return what the front matter has as one text, a list of them, or not at all."""
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))


def _recorded_facts(entry: WeightEntry) -> CardFacts:
    """Return what the manifest says of a model."""
    corpora = tuple(entry.heard)
    known = _IDENTIFIER.fullmatch(entry.license.lower())
    return CardFacts(
        license=entry.license.lower() if known else "other",
        license_text=None if known else entry.license,
        base_model=entry.repo_id or entry.teacher,
        datasets=corpora,
        language=tuple(dict.fromkeys(LANGUAGES[name] for name in corpora if name in LANGUAGES)),
        metrics=entry.metrics,
        scored_on=entry.trained_on.partition(" (")[0],
        trained_on=entry.trained_on,
        citation=entry.citation,
    )


def write_card(config: ClassifierConfig, facts: CardFacts, *, title: str = "Speech emotion") -> str:
    """Return a model card in Markdown.

    Args:
        config: what the model is.
        facts: what else is known.
        title: the heading.
    """
    labels = ", ".join(config.labels)
    parts = [f"# {title}", f"It tells {labels} from speech: a small network on log-Mel spectrograms."]
    if facts.metrics:
        parts += ["## Scores", _scores(facts)]
    parts += [
        "## Use",
        f'```python\nfrom speech_emotion_vit import EmotionClassifier\n\nclassifier = EmotionClassifier("{PLACE}")\n'
        'print(classifier.predict("clip.wav"))\n```',
        "`pip install speech-emotion-vit` brings what it needs. No code is loaded from this folder.",
        "## Limits",
        "It knows the voices, languages and recordings it was trained on. On others, and on emotions that are spoken "
        "and not acted or the other way round, expect less than any score here. Not for decisions about people.",
    ]
    if facts.trained_on:
        parts += ["## Data", facts.trained_on.rstrip(".") + "."]
    if facts.license_text:
        parts += ["## Licence", facts.license_text.rstrip(".") + "."]
    if facts.citation:
        parts += ["## To cite", facts.citation]
    return complete_card("\n\n".join(parts) + "\n", facts)


def complete_card(text: str, facts: CardFacts) -> str:
    """Return a card with the front matter that the Hub reads; what `facts` know replaces what the card says.

    Raises:
        ConfigError: its front matter cannot be read.
    """
    data, body = _front_matter(text)
    _fill(data, facts)
    return f"---\n{data.to_yaml()}\n---\n\n{body.lstrip()}"


def _front_matter(text: str) -> tuple[ModelCardData, str]:
    """Return what the front matter of a card says, and the rest of the card.

    Raises:
        ConfigError: its front matter cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    front, body = _parts(text)
    try:
        return (cast("ModelCardData", ModelCard(front).data) if front else ModelCardData()), body
    except Exception as error:  # of the YAML reader, or of the Hub's client, which checks the scores
        raise ConfigError(
            f"{CARD_FILE}: the lines between its first two --- cannot be read ({one_line(error)[:200]}): correct them"
        ) from error


def gaps(card: str) -> list[str]:
    """Return what people look for in the front matter of a card and do not find."""
    front, _ = _parts(card)
    return [name for name in ("license", "language", "datasets") if not re.search(rf"^{name}:", front, re.MULTILINE)]


def _parts(text: str) -> tuple[str, str]:
    """Return the front matter with its lines of ---, empty where there is none, and the rest."""
    match = re.match(r"\ufeff?(---\r?\n(?:.*?\r?\n)?---[ \t]*(?:\r?\n|$))(.*)", text, re.DOTALL)
    return (match[1], match[2]) if match else ("", text)


def _fill(data: ModelCardData, facts: CardFacts) -> None:
    known: dict[str, Any] = {
        "license": facts.license,
        "base_model": facts.base_model,
        "datasets": list(facts.datasets),
        "language": list(facts.language),
    }
    for name, value in known.items():
        if value:
            setattr(data, name, value)
    data.library_name = "speech-emotion-vit"
    data.pipeline_tag = "audio-classification"
    tags = [data.tags] if isinstance(data.tags, str) else data.tags or []
    data.tags = list(dict.fromkeys([*tags, *_TAGS]))
    if facts.metrics:
        data.metrics = list(dict.fromkeys(_HUB_METRICS.get(each.name, each.name.lower()) for each in facts.metrics))
        data.model_name = data.model_name or "speech-emotion-vit"
        data.eval_results = [_result(each, facts) for each in facts.metrics]


def _result(metric: Metric, facts: CardFacts) -> EvalResult:
    """Return a score as the Hub shows it."""
    from huggingface_hub import EvalResult

    name = _scored_on(metric, facts)
    return EvalResult(
        task_type="audio-classification",
        task_name="Speech emotion recognition",
        dataset_type=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        dataset_name=name,
        dataset_split=metric.split,
        metric_type=_HUB_METRICS.get(metric.name, metric.name.lower()),
        metric_name=f"{metric.name}, {metric.protocol} protocol",
        metric_value=round(metric.value, 4),
    )


def _scores(facts: CardFacts) -> str:
    lines = ["| on | score | value | protocol | clips | speakers |", "|---|---|---|---|---|---|"]
    for each in facts.metrics:
        interval = f" ({100 * each.interval[0]:.1f} to {100 * each.interval[1]:.1f})" if each.interval else ""
        lines.append(
            f"| {_scored_on(each, facts)} | {each.name} | {100 * each.value:.1f}{interval} "
            f"| {each.protocol}, {each.split} | {each.clips} | {each.speakers} |"
        )
    meaning = "Percent; in brackets the 95 % interval over speakers. UA is the mean recall of the classes, WA accuracy."
    return "\n".join([*lines, "", meaning])


def _scored_on(metric: Metric, facts: CardFacts) -> str:
    return metric.note or facts.scored_on or "own recordings"
