"""Put into docs/assets/browser/ what the page docs/browser.md runs: an exported model and onnxruntime-web.

    python tools/browser_page.py [--model NAME] [--runtime FILE.tgz]

The folder is not in the repository: it is 38 MB, and made from what is. The runtime is fetched by npm, at the version
and with the digest below; `--runtime` takes a tarball that ``npm pack`` has made elsewhere. Without the folder the site
builds too, and the page says what is missing. Run it again after the model or the version here has changed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from speech_emotion_vit.backends.export import onnx_bytes
from speech_emotion_vit.weights.checkpoint import load_arrays
from speech_emotion_vit.weights.resolve import resolve_model

MODEL = "base"  # the one place that says what the page runs; docs/browser.md and its script read model.json

RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # SHA-512
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TARGET = Path(__file__).resolve().parents[1] / "docs" / "assets" / "browser"


def main() -> None:
    """Fill the folder that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=MODEL, help="name, folder or file of the model  [default: %(default)s]")
    parser.add_argument("--runtime", type=Path, help=f"tarball of {RUNTIME}  [default: fetched by npm]")
    parser.add_argument("--output", type=Path, default=TARGET, help="folder to fill  [default: %(default)s]")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        unpack(options.runtime or fetch(Path(folder)), options.output)
    write_model(options.model, options.output)
    for path in sorted(options.output.iterdir()):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")


def fetch(folder: Path) -> Path:
    """Return the runtime's tarball, which npm has put into a folder."""
    if shutil.which("npm") is None:
        sys.exit(f"npm is not installed: install it, or pass --runtime with the tarball of `npm pack {RUNTIME}`")
    result = subprocess.run(["npm", "pack", "--silent", RUNTIME], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"npm pack {RUNTIME} failed: {(result.stderr or result.stdout).strip()}")
    return folder / result.stdout.split()[-1]


def unpack(tarball: Path, target: Path) -> None:
    """Write the files of the runtime that the page loads, and its licence."""
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != INTEGRITY:
        sys.exit(f"{tarball}: not {RUNTIME}: its SHA-512 is {digest}, not {INTEGRITY}")
    with tarfile.open(tarball) as archive:
        for name in FILES:
            content = archive.extractfile(f"package/dist/{name}")
            if content is None:
                sys.exit(f"{tarball}: no dist/{name} in it")
            (target / name).write_bytes(content.read())


def write_model(name: str, target: Path) -> None:
    """Write the exported model, and beside it what the page says of it."""
    resolved = resolve_model(name)
    _, config = load_arrays(resolved)
    content = onnx_bytes(resolved)
    (target / "model.onnx").write_bytes(content)
    facts = {
        "model": resolved.name,
        "revision": resolved.revision,
        "labels": config.labels,
        "sampling_rate": config.frontend.sampling_rate,
        "bytes": len(content),
        "runtime": RUNTIME,
    }
    (target / "model.json").write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
