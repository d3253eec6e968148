"""From a policy checkpoint to a sealed bundle, or to none: what does not pass the gate is never given its name.

Refuses to know where checkpoints come from and where bundles go.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.bundle import manifest as manifests
from sanderling.bundle.golden import Golden, GoldenState, GoldenText
from sanderling.bundle.manifest import Exploration, Lineage, Manifest, Sizes
from sanderling.bundle.reader import Bundle
from sanderling.bundle.writer import write_manifest
from sanderling.errors import SanderlingError
from sanderling.ranking.golden_check import top_after
from sanderling.ranking.scorer import Scorer
from sanderling.runtime.files import flush_folder, publish
from sanderling_quantize import gate, quantize_items
from sanderling_quantize.checkpoint import Checkpoint, read
from sanderling_quantize.encoders import text_augmentation
from sanderling_quantize.encoders.build_encoder import Encoding, make
from sanderling_quantize.gate import Check, Thresholds

HELD_OUT = 0.1
GOLDEN = 16


class GateError(SanderlingError):
    """The bundle fell short and was not written; `rows` is the gate's table."""

    def __init__(self, rows: list[Check]) -> None:
        failed = ", ".join(row.sentence() for row in rows if not row.passed)
        super().__init__(f"the bundle did not pass the gate and was not written: {failed}")
        self.rows = rows


@dataclass(frozen=True)
class Built:
    """A sealed bundle and the gate's table."""

    folder: Path
    manifest: Manifest
    rows: list[Check]


def build(
    checkpoint: Path,
    out: Path,
    *,
    encoding: Encoding,
    thresholds: Thresholds | None = None,
    encoder_of: Path | None = None,
    previous: Path | None = None,
) -> Built:
    """Build, gate and seal the bundle `out`, which must not exist.

    `encoder_of` names an earlier bundle whose encoder is taken over, when the language model has not changed since;
    `previous` the release before, for the gate to compare latencies with. `thresholds` are the tier's own by default.
    Raises `GateError` when the bundle falls short; then nothing is left behind.
    """
    if out.exists():
        raise FileExistsError(
            f"expected no {out}: a bundle is never written over; remove it or choose another name"
        )
    source = read(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder = work / "bundle"
        folder.mkdir()
        seen, unseen = _texts(source)
        if encoder_of is None:
            forms = make(source.encoder, seen[0], unseen[0], folder, _max_tokens(source), encoding)
        else:
            forms = _take_over(encoder_of, folder)
        quantize_items.write(source, folder)
        manifest = _seal(
            source, folder, encoding, {"encoder": {"tier": encoding.tier, "forms": forms}}
        )
        rows = gate.judge(
            folder, source, seen, unseen, thresholds or Thresholds.of(encoding.tier), previous
        )
        if not all(row.passed for row in rows):
            raise GateError(rows)
        manifest = msgspec.structs.replace(
            manifest, reports={**manifest.reports, "gate": gate.report(rows)}
        )
        (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
        flush_folder(folder)
        publish(folder, out)
        return Built(out, manifest, rows)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def regate(bundle: Path, checkpoint: Path, tier: str, previous: Path | None = None) -> list[Check]:
    """Run the gate alone on a finished bundle, by a tier's thresholds; raise `ValueError` for an unknown tier."""
    source = read(checkpoint)
    seen, unseen = _texts(source)
    return gate.judge(bundle, source, seen, unseen, Thresholds.of(tier), previous)


Texts = tuple[list[str], NDArray[np.float32]]


def _texts(source: Checkpoint) -> tuple[Texts, Texts]:
    """Return the texts to train on and those kept from it, with what the language model answered for the policy."""
    vectors = source.tensors["item.text"]
    answers = dict(zip(source.texts, vectors, strict=True))
    parts = text_augmentation.held_out(answers, HELD_OUT)
    seen, unseen = (
        (part, np.array([answers[text] for text in part], np.float32).reshape(-1, vectors.shape[1]))
        for part in parts
    )
    return seen, unseen


def _max_tokens(source: Checkpoint) -> int:
    """Return the number of tokens at which the policy's own texts were cut."""
    return int(source.settings["config"]["max_tokens"])


def _take_over(bundle: Path, folder: Path) -> list[dict[str, Any]]:
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(bundle / name, folder / name)
    forms: list[dict[str, Any]] = manifests.read(bundle).reports.get("encoder", {}).get("forms", [])
    return forms


EXPLORES = ("scheme", "epsilon", "pool", "temperature", "guarded", "daily")


def _seal(
    source: Checkpoint, folder: Path, encoding: Encoding, reports: dict[str, Any]
) -> Manifest:
    facts, config = source.settings, source.settings["config"]
    n, d = source.tensors["item.vectors"].shape
    fields: dict[str, Any] = {
        "app": facts["app"],
        "release": facts["release"],
        "created": int(time.time()),
        "min_engine": "0.1.0",
        "sizes": Sizes(
            items=n,
            dim=d,
            state=source.tensors["state.decay"].shape[0],
            text=source.tensors["item.text"].shape[1],
            max_tokens=_max_tokens(source),
        ),
        "exploration": msgspec.convert(
            {name: config[name] for name in EXPLORES if name in config}, Exploration
        ),
        "kinds": facts["kinds"],
        "lineage": Lineage(
            facts["parent"], facts["log_from"], facts["log_to"], facts["data_sha256"]
        ),
        "reports": reports,
    }
    (folder / "golden.json").write_bytes(b"{}")
    write_manifest(folder, **fields)
    _write_golden(source, folder, encoding.seed)
    return write_manifest(folder, **fields)


def _write_golden(source: Checkpoint, folder: Path, seed: int) -> None:
    """Let the sealed bundle answer for itself, once, on the machine that made it."""
    bundle = Bundle.open(folder)
    scorer, rng = Scorer(bundle), np.random.default_rng(seed)
    ids = [record["id"] for record in source.records]
    chosen = [source.texts[at] for at in rng.choice(len(ids), min(GOLDEN, len(ids)), replace=False)]
    histories = [
        [
            (ids[int(at)], bundle.manifest.kinds[int(rng.integers(len(bundle.manifest.kinds)))])
            for at in rng.integers(len(ids), size=length)
        ]
        for length in range(GOLDEN)
    ]
    golden = Golden(
        texts=[GoldenText(text, scorer.encoder.encode(text).tolist()) for text in chosen],
        states=[GoldenState(events, top_after(scorer, events)) for events in histories],
    )
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
