"""Which texts an encoder's domain leaves out: false flags, what is found, a catalog that drifts.

Files have one text a line. The domain is fitted as `quantize` does, to texts that the encoder was
distilled on (`--seen`) and texts that it was not (`--unseen`); `--held-out` are more of the latter,
by which false flags are counted, and each `--other` are texts of elsewhere.

    python -m bench domain --encoder BUNDLE --seen A.txt --unseen B.txt --held-out C.txt
                           --other films=D.txt [--other …]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.text_domain import TextDomain
from sanderling.ranking.text_encoder import EncodedText, TextEncoder
from sanderling_quantize.encoders.text_domain import fit_text_domain

MAX_TOKENS = 64
MIXTURES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the share of flagged texts and the area under the curve by set, and of mixtures."""
    options = _parser().parse_args(arguments)
    encoder = TextEncoder(options.encoder, _width(options.encoder), MAX_TOKENS)
    fitted = fit_text_domain(encoder, _lines(options.seen), _lines(options.unseen))
    domain = TextDomain.of(fitted)
    if domain is None:
        sys.exit(f"{options.unseen}: expected at least 39 texts to take limits from")
    own = _encoded(encoder, options.held_out)
    result: dict[str, Any] = {
        "limits": fitted["text.limits"].tolist(),
        "held out": {"texts": len(own), "flagged": _flagged(domain, own)},
        "us": _microseconds(domain, own),
    }
    print(f"held out: {len(own)} texts, {result['held out']['flagged']:.2%}", file=sys.stderr)
    for name, path in (pair.split("=", 1) for pair in options.other):
        other = _encoded(encoder, Path(path))
        share = _flagged(domain, other)
        area = _area(_scores(domain, own), _scores(domain, other))
        mixed = {
            f"{part:.0%}": (1 - part) * result["held out"]["flagged"] + part * share
            for part in MIXTURES
        }
        unknown = float(np.mean([text.unknown > domain.limits[1] for text in other]))
        result[name] = {
            "texts": len(other),
            "flagged": share,
            "of these by unknown tokens": unknown,
            "area": area,
            "mixed": mixed,
        }
        print(f"{name}: {len(other)} texts, {share:.1%}, area {area:.3f}", file=sys.stderr)
    return result


def _encoded(encoder: TextEncoder, path: Path) -> list[EncodedText]:
    return [encoder.encode_item_text(text) for text in _lines(path)]


def _flagged(domain: TextDomain, texts: list[EncodedText]) -> float:
    return float(np.mean([domain.is_outside(*text) for text in texts]))


def _scores(domain: TextDomain, texts: list[EncodedText]) -> NDArray[np.float64]:
    """Return what is compared with a limit, the greater of the two in units of its limit."""
    distances = domain.distance(np.stack([text.vector for text in texts])) / domain.limits[0]
    unknown = np.array([text.unknown for text in texts]) / domain.limits[1]
    return np.maximum(distances, unknown)


def _area(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the probability that a text of elsewhere has the higher score, ties half."""
    above = (other[:, None] > own[None]).mean() + 0.5 * (other[:, None] == own[None]).mean()
    return float(above)


def _microseconds(domain: TextDomain, texts: list[EncodedText]) -> float:
    """Return what the question costs for one text, the least of ten rounds."""
    rounds = []
    for _ in range(10):
        start = time.perf_counter()
        for text in texts[:100]:
            domain.is_outside(*text)
        rounds.append((time.perf_counter() - start) / len(texts[:100]))
    return 1e6 * min(rounds)


def _width(folder: Path) -> int:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "encoder.onnx"))
    width = session.get_outputs()[0].shape[-1]
    if not isinstance(width, int):
        return int(json.loads((folder / "manifest.json").read_text())["sizes"]["text"])
    return width


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench domain")
    parser.add_argument("--encoder", type=Path, required=True, help="a bundle, or its encoder")
    for name in ("seen", "unseen", "held-out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FILE")
    return parser
