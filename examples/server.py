"""Answer over HTTP: a recording is posted, and the emotions in it come back as JSON.

pip install "speech-emotion-vit[server]"
python examples/server.py --port 8000
curl --form file=@examples/clips/anger.flac http://127.0.0.1:8000/predict
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response, UploadFile
from pebble import ProcessExpired, ProcessPool
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from speech_emotion_vit import AudioError, EmotionClassifier

REQUESTS = Counter("emotion_requests", "Answers to POST /predict", ["status"])
SECONDS = Histogram("emotion_seconds", "From a request's first byte to its answer, in seconds")
HEARD = Counter("emotion_audio_seconds", "Length of the recordings that had an answer, in seconds")
WAITING = Gauge("emotion_waiting", "Recordings that are being heard or wait for it")

parser = argparse.ArgumentParser(description="Answer over HTTP.")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--model", default=None, help="name, folder or repository of the Hub")
parser.add_argument("--backend", default="auto", choices=["auto", "torch", "onnx"])
parser.add_argument("--workers", type=int, default=1, help="processes that hear")
parser.add_argument("--max-mb", type=float, default=20.0, help="of a request")
parser.add_argument("--send-seconds", type=float, default=60.0, help="to send a request, at most")
parser.add_argument("--hear-seconds", type=float, default=30.0, help="to hear a recording, at most")
parser.add_argument("--max-waiting", type=int, default=64, help="recordings; more are told to come again")


# Strangers' audio is decoded in processes of their own: they are stopped when they take too long, and a decoder that
# crashes takes nothing else with it.
def load(model: str | None, backend: Any) -> None:
    global classifier
    classifier = EmotionClassifier(model, backend=backend)


def describe() -> dict[str, Any]:
    return {"model": classifier.name, "labels": classifier.labels}


def predict(recording: bytes) -> dict[str, Any]:
    return classifier.predict(recording).to_dict()


class Limits:
    """Refuse requests that are too large or too slow, whatever their headers say. What is too much is read and dropped:
    a client that is still sending when the connection closes would not see the answer."""

    def __init__(self, app: Any, most_bytes: float, most_seconds: float) -> None:
        self.app, self.most_bytes, self.most_seconds = app, most_bytes, most_seconds

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        size = 0
        end = time.monotonic() + self.most_seconds
        done = False

        async def limited() -> Any:
            nonlocal size, done
            while not done:
                try:
                    message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
                except asyncio.TimeoutError:
                    raise HTTPException(408, f"sending took more than {self.most_seconds:g} s") from None
                size += len(message.get("body", b""))
                done = not message.get("more_body", False)
                if size <= self.most_bytes:
                    return message
            if size > self.most_bytes:
                raise HTTPException(413, f"more than {self.most_bytes / 1e6:g} MB")
            return await receive()  # whether the client is still there

        await self.app(scope, limited if scope["type"] == "http" else receive, send)


def create_app(options: argparse.Namespace) -> FastAPI:
    pool: ProcessPool | None = None
    waiting = 0

    def run(work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        nonlocal pool
        if pool is None or not pool.active:  # it breaks where somebody kills all that idle
            context = multiprocessing.get_context("spawn")
            model = options.model, options.backend
            pool = ProcessPool(options.workers, initializer=load, initargs=model, context=context)
        return asyncio.wrap_future(pool.schedule(work, arguments, timeout=options.hear_seconds))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.about = await run(describe)  # no model, no server
        yield
        assert pool is not None
        pool.close()
        pool.join()

    app = FastAPI(title="speech-emotion-vit", lifespan=lifespan)
    app.add_middleware(Limits, most_bytes=options.max_mb * 1e6, most_seconds=options.send_seconds)
    WAITING.set_function(lambda: waiting)

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Any]) -> Response:
        began = time.perf_counter()
        response: Response = await call_next(request)
        if request.url.path == "/predict":
            REQUESTS.labels(response.status_code).inc()
            SECONDS.observe(time.perf_counter() - began)
        return response

    @app.post("/predict")
    async def answer(file: UploadFile) -> dict[str, Any]:
        nonlocal waiting
        if waiting >= options.max_waiting:
            raise HTTPException(503, "too many recordings wait: come again", {"Retry-After": "1"})
        waiting += 1
        try:
            found: dict[str, Any] = await run(predict, await file.read())
        except AudioError as error:
            raise HTTPException(422, str(error)) from error
        except asyncio.TimeoutError as error:
            raise HTTPException(422, f"hearing it takes more than {options.hear_seconds:g} s: send less") from error
        except (ProcessExpired, BrokenProcessPool) as error:
            raise HTTPException(500, "the process that heard it ended: send another") from error
        finally:
            waiting -= 1
        HEARD.inc(found["duration"])
        return found

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **app.state.about}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


if __name__ == "__main__":
    options = parser.parse_args()
    uvicorn.run(create_app(options), host=options.host, port=options.port, access_log=False)
