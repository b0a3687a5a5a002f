"""A page to try it: a microphone or a file in, probabilities, a timeline and an explanation out, by Gradio.

The page is served on this machine only, and no recording leaves it: Gradio's analytics are off, and its temporary files
are deleted at the end. A Space of the Hugging Face Hub serves the same page, see ``examples/space``.
"""

from __future__ import annotations

import html
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .classifier import EmotionClassifier
from .errors import ConfigError, SpeechEmotionError, one_line
from .extras import require
from .prediction import Prediction
from .weights.manifest import load_manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOPBACK = "127.0.0.1"
LARGEST = "200mb"  # of a file: longer recordings are for the command line
_SHORT = 12.0  # seconds; the timeline of less has shorter windows, or it would be a point or two
_PICTURE = (7.5, 4.6)  # inches: also legible on a phone, where it shrinks to the width of the screen
_DPI = 120  # to be as wide as the page on a desk
_TITLE = "What emotion does a voice express?"
_INTRODUCTION = f"""# {_TITLE}
Record yourself, or give a recording. It stays on the machine that runs this page.
"""
_LIMITS = """The models learnt from actors who speak set sentences. A probability says how a clip sounds compared with
those recordings, not what a person feels. Do not use it to judge people."""
_STYLE = """
footer { display: none !important; }
.gradio-container { margin: auto; max-width: min(60rem, 100vw) !important; }
.gradio-container .main { max-width: 100vw; min-width: 0; }
.remark { margin: 0; }
.fault { color: var(--error-text-color, #b91c1c); font-weight: 600; margin: 0; overflow-wrap: anywhere; }
#recording audio { max-width: 100%; min-width: 0; }
"""

Answer = tuple[Any, str, "Figure | None", "Figure | None"]


def build(model: str | None = None, *, device: str = "auto") -> Any:
    """Return the page, a `gradio.Blocks`.

    Args:
        model: what is chosen at first: a name, a folder, a file or a repository of the Hub; None is the default.
        device: as in `EmotionClassifier`.

    Raises:
        ConfigError: Gradio is not installed.
        WeightsError: the model cannot be loaded.
    """
    gr = _gradio()
    manifest = load_manifest()
    first = model or manifest.default
    names = list(dict.fromkeys([first, manifest.default, *manifest.models]))

    @lru_cache(maxsize=2)
    def load(name: str) -> EmotionClassifier:
        return EmotionClassifier(name, device=device)

    load(first)  # so that a fault shows now, not to the first visitor
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=280):
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Recording",
                    buttons=[],
                    elem_id="recording",
                )
                chosen = gr.Dropdown(names, value=first, label="Model", elem_id="model")
            with gr.Column(min_width=280):
                label = gr.Label(label="Emotion", elem_id="emotion")
                remarks = gr.HTML(elem_id="remarks")
        with gr.Column(visible=False, min_width=0) as time_part:
            gr.Markdown("### Over time")
            over_time = gr.Plot(show_label=False, elem_id="over-time", format="png")
        with gr.Column(visible=False, min_width=0) as why_part:
            gr.Markdown("### Where in time the network looked")
            why = gr.Plot(show_label=False, elem_id="why", format="png")
        gr.Markdown(_LIMITS)

        def listen(path: str | None, name: str) -> Iterator[tuple[Any, ...]]:
            for found, said, *pictures in answers(path, name, load):
                parts = (gr.Column(visible=picture is not None) for picture in pictures)
                yield found, said, *pictures, *parts

        gr.on(
            [audio.change, chosen.change],
            listen,
            [audio, chosen],
            [label, remarks, over_time, why, time_part, why_part],
            show_progress="minimal",
            show_progress_on=label,
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page


def answers(path: str | None, name: str, load: Callable[[str], EmotionClassifier]) -> Iterator[Answer]:
    """Yield what the page shows of a recording, more and more of it: label, remarks, timeline, explanation.

    Args:
        path: of the file; None if there is none.
        name: of the model.
        load: returns the model of a name.
    """
    if path is None:
        yield None, "", None, None
        return
    try:
        classifier = load(name)
        prediction = classifier.predict(path)
        shown, said = _label(prediction), _remarks(prediction)
        yield shown, said, None, None
        if prediction.label is None:
            return
        short = prediction.duration < _SHORT
        timeline = classifier.timeline(path, hop=0.5 if short else 1.0, window=2.0 if short else None).plot()
        timeline.suptitle("")
        yield shown, said, _sized(timeline), None
        yield shown, said, timeline, _sized(classifier.explain(path).plot())
    except SpeechEmotionError as error:
        text = str(error).replace(str(path), Path(path).name)
        yield None, f'<p class="fault" role="alert">{html.escape(text)}</p>', None, None


def launch(
    model: str | None = None,
    *,
    device: str = "auto",
    host: str = LOOPBACK,
    port: int | None = None,
    share: bool = False,
    browser: bool = False,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        model: as in `build`.
        device: as in `build`.
        host: address to listen on; 127.0.0.1 is this machine alone, 0.0.0.0 is all networks that it is in.
        port: to listen on; None is the first free port from 7860 on.
        share: let Gradio's servers forward the page to anybody who knows its address there. Recordings pass through
            them.
        browser: open a browser.
        ready: called with the page's address.

    Raises:
        ConfigError: Gradio is not installed, or the address is not available.
        WeightsError: the model cannot be loaded.
    """
    _require_address(host, port)  # first, because Gradio would try a hundred ports
    with tempfile.TemporaryDirectory(prefix="speech-emotion-vit-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of this process: recordings do not outlive it
        page = build(model, device=device)
        _, local, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=LARGEST,
            ssr_mode=False,
            enable_monitoring=False,
            css=_STYLE,
        )
        if share and not public:
            page.close()
            raise ConfigError(
                "Gradio's servers do not forward the page: check whether they can be reached, or leave out --share"
            )
        try:
            ready(public or local)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _require_address(host: str, port: int | None) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        where = f"{host}:{port}" if port else host
        raise ConfigError(
            f"the page cannot be served at {where} ({one_line(error)}): choose another --host or --port"
        ) from error


def _gradio() -> Any:
    # Before the import, because Gradio then looks up its newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return require("gradio", "demo")


def _label(prediction: Prediction) -> Any:
    return "nobody speaks" if prediction.label is None else prediction.probabilities


def _sized(picture: Figure) -> Figure:
    picture.set_size_inches(*_PICTURE)
    picture.set_dpi(_DPI)
    return picture


def _remarks(prediction: Prediction) -> str:
    lines = [f"{prediction.speech:.1f} s of speech in {prediction.duration:.1f} s, answered by {prediction.model}"]
    return "".join(f'<p class="remark">{html.escape(line)}</p>' for line in (*lines, *prediction.warnings))
