"""Writes the page that learns as static files, for `sanderling demo --web` or any web server: `make
page`.

The page loads two scripts, its own and the package, which `npm run build` has minified. The service
worker gets the list of the files and a version made of their hashes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from sanderling.cli.tiny import BUNDLE

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "engine" / "js"
STATIC = ("index.html", "icon.svg", "app.webmanifest")

RUNTIME = {
    "ort.wasm.min.mjs": "onnxruntime-web/dist/ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs": "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "tokenizers.min.mjs": "@huggingface/tokenizers/dist/tokenizers.min.mjs",
}
"""What the text encoder needs, by its name in the page's folder `runtime`."""

SCRIPTS = {"page.js": "page.js", "sanderling.js": "engine/dist/sanderling.js"}
"""The minified scripts of the folder `dist`, by their names in the page."""

MINIFIED = {**SCRIPTS, "style.css": "style.css"}
"""The same with the styles."""

FIRST = ("manifest.json", "catalog.jsonl", "items.safetensors", "policy.safetensors")
"""The files of the bundle that the first shelf needs."""

LAZY = ("runtime/",)
"""Folders whose files are loaded, and kept, when they are first needed."""


def build(out: Path, bundle: Path) -> None:
    """Write the page with a bundle into a folder, whose earlier contents are replaced.

    Raises `FileNotFoundError` unless `npm run build` has made the package.
    """
    compiled = PACKAGE / "dist"
    if not all((compiled / name).is_file() for name in MINIFIED):
        raise FileNotFoundError(f"{compiled}: expected the compiled package; run `make page`")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    for name in STATIC:
        shutil.copyfile(PACKAGE / "page" / name, out / name)
    (out / "engine" / "dist").mkdir(parents=True)
    for name, place in MINIFIED.items():
        shutil.copyfile(compiled / name, out / place)
    shutil.copytree(PACKAGE / "wasm", out / "engine" / "wasm")
    (out / "runtime").mkdir()
    for name, source in RUNTIME.items():
        shutil.copyfile(PACKAGE / "node_modules" / source, out / "runtime" / name)

    _preload(out)
    config = {"bundle": "bundle/", "collector": None, "token": None}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_worker(compiled / "page" / "worker.js", out)
    shutil.copytree(bundle, out / "bundle")


def _preload(out: Path) -> None:
    """Name every script and file that the first shelf needs in the page's head, so that the browser
    asks for all of them at once instead of one after the other.
    """
    scripts = [out / place for place in SCRIPTS.values()]
    kernels = sorted((out / "engine").rglob("*.wasm"))
    fetched = [*kernels, *(out / "bundle" / name for name in FIRST)]
    kinds = {'rel="modulepreload"': scripts, 'rel="preload" as="fetch" crossorigin': fetched}
    links = [
        f'<link {kind} href="{path.relative_to(out).as_posix()}">'
        for kind, paths in kinds.items()
        for path in paths
    ]
    page = out / "index.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</head>", "\n".join([*links, "</head>"])), encoding="utf-8")


def _write_worker(compiled: Path, out: Path) -> None:
    """Write the service worker with the files of the page and their version."""
    digest = hashlib.sha256(compiled.read_bytes())
    names = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes())
        if not name.startswith(LAZY):
            names.append("./" if name == "index.html" else name)
    text = compiled.read_text(encoding="utf-8")
    for placeholder, value in (
        ("export {};", ""),  # it is a script
        ('"development"', json.dumps(digest.hexdigest()[:16])),
        ("FILES = []", f"FILES = {json.dumps(names)}"),
    ):
        assert text.count(placeholder) == 1, placeholder
        text = text.replace(placeholder, value)
    (out / "worker.js").write_text(text, encoding="utf-8")


def gzipped_sizes(folder: Path) -> dict[str, int]:
    """Return the gzipped bytes of each part: the page itself, the engine, the bundle, and the
    runtime of its text encoder.
    """
    sizes = dict.fromkeys(("page", "engine", "bundle", "runtime"), 0)
    for path in folder.rglob("*"):
        if path.is_file():
            top = path.relative_to(folder).parts[0]
            sizes[top if top in sizes else "page"] += len(gzip.compress(path.read_bytes(), 9))
    return sizes


def main() -> None:
    """Compile the package and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments = parser.parse_args()

    subprocess.run(["npm", "run", "--silent", "build"], cwd=PACKAGE, check=True)
    build(arguments.out, arguments.bundle)
    sizes = gzipped_sizes(arguments.out)
    listed = ", ".join(f"{part} {size / 1e3:,.1f} kB" for part, size in sizes.items())
    print(f"{arguments.out}: {listed}; {sum(sizes.values()) / 1e3:,.0f} kB gzipped")


if __name__ == "__main__":
    main()
