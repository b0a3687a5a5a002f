# The server of examples/server.py without torch, about 250 MB on top of Python's image.
#
# docker build --tag speech-emotion-vit .
# docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 speech-emotion-vit
#
# .ci/container runs the same commands in a fresh environment, where there is no Docker.
FROM python:3.13-slim
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY pyproject.toml README.md LICENSE weights_manifest.json source/
COPY src source/src
COPY examples/server.py ./
RUN pip install --no-cache-dir numpy soundfile soxr huggingface-hub safetensors click tqdm msgspec onnxruntime \
        fastapi uvicorn python-multipart prometheus-client pebble && \
    pip install --no-cache-dir --no-deps ./source && \
    rm -r source
USER 65534
EXPOSE 8000
HEALTHCHECK --start-period=20s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"
CMD ["python", "server.py", "--host", "0.0.0.0"]
