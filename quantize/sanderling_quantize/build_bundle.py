"""From a policy checkpoint to a sealed bundle. A bundle that fails the gate is not written."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sanderling.bundle import manifest as manifests
from sanderling.bundle.golden import Golden, GoldenState, GoldenText
from sanderling.bundle.manifest import Exploration, Lineage, Manifest, Prefixes, Sizes
from sanderling.bundle.reader import Bundle
from sanderling.bundle.tensors import Tensors
from sanderling.bundle.writer import write_manifest
from sanderling.ranking.golden_check import top_after
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.text_encoder import TextEncoder
from sanderling.runtime.files import flush_folder, publish
from sanderling_quantize import gate
from sanderling_quantize.card_facts import card_facts
from sanderling_quantize.checkpoint import Checkpoint, read
from sanderling_quantize.encoders.build_encoder import Encoding, build_encoder
from sanderling_quantize.encoders.text_augmentation import split_held_out
from sanderling_quantize.encoders.text_domain import (
    domain_of_encoder,
    fit_text_domain,
    share_outside,
)
from sanderling_quantize.gate import Check, GateError, TeacherTexts, TextSplit, Thresholds
from sanderling_quantize.manifest_files import NO_FILES, ManifestFiles
from sanderling_quantize.quantize_items import quantize_items
from sanderling_quantize.settings import types_of

HELD_OUT = 0.1
GOLDEN = 16
MIN_ENGINE = "0.1.0"
OUTSIDE = "texts_outside"


@dataclass(frozen=True)
class BuildResult:
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
    exploration: Mapping[str, Any] | None = None,
    files: ManifestFiles = NO_FILES,
    encoder_of: Path | None = None,
    previous: Path | None = None,
) -> BuildResult:
    """Build, check and seal the bundle `out`, which must not exist.

    `encoder_of` is an earlier bundle whose encoder and tier are taken, when the language model has
    not changed since; `previous` is the release before, for the gate to compare latencies with.
    `thresholds` are the tier's own by default. `exploration` has the fields of `Exploration` in
    which the bundle differs from the checkpoint; they are written into the checkpoint as well,
    since retraining reads there how a release explores. `files` have arms and rules; the gate
    judges what there is without them. Raises `FileExistsError` when `out` exists, and `GateError`
    when the bundle fails the gate; then nothing is left behind.
    """
    if out.exists():
        raise FileExistsError(
            f"expected no {out}: a bundle is never overwritten; remove it or choose another name"
        )
    source = read(checkpoint).with_settings(exploration or {})
    texts = _split_texts(source)
    tier = encoding.tier if encoder_of is None else tier_of(encoder_of, encoding.tier)
    limits = thresholds or Thresholds.of(tier)

    # Beside `out`: the bundle gets its name by one rename, which needs the same file system.
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder = work / "bundle"
        folder.mkdir()
        if encoder_of is None:
            forms = _build_encoder(source, texts, folder, encoding, limits)
        else:
            forms = _copy_encoder(encoder_of, folder)
        domain, outside = _text_domain(source, texts, folder, encoder_of)
        quantize_items(source, folder, domain)
        encoder = {"tier": tier, "forms": forms, OUTSIDE: outside}
        found = {"encoder": encoder, "card": card_facts(checkpoint)}
        manifest = _seal(source, folder, found, encoding.seed)

        rows = gate.run_checks(folder, source, texts, limits, previous)
        if not all(row.passed for row in rows):
            raise GateError(rows)

        reports = {**manifest.reports, "gate": gate.report(rows)}
        manifest = files.added_to(folder, msgspec.structs.replace(manifest, reports=reports))
        (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
        flush_folder(folder)
        if exploration:
            source.write_settings()
        publish(folder, out)
        return BuildResult(out, manifest, rows)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_bundle(
    bundle: Path, checkpoint: Path, tier: str, previous: Path | None = None
) -> list[Check]:
    """Run the gate alone on a finished bundle, by a tier's thresholds.

    Raises `ValueError` for an unknown tier.
    """
    source = read(checkpoint)
    texts = _split_texts(source)
    return gate.run_checks(bundle, source, texts, Thresholds.of(tier), previous)


def _split_texts(source: Checkpoint) -> TextSplit:
    """Split the catalog's texts into those to distil on and those held out, with their vectors.

    The vectors are the language model's own, which the policy was trained with.
    """
    vectors = source.tensors["item.text"]
    vector_of = dict(zip(source.texts, vectors, strict=True))

    def with_vectors(texts: list[str]) -> TeacherTexts:
        rows = np.array([vector_of[text] for text in texts], np.float32)
        return TeacherTexts(texts, rows.reshape(-1, vectors.shape[1]))

    seen, unseen = split_held_out(vector_of, HELD_OUT)
    return TextSplit(with_vectors(seen), with_vectors(unseen))


def _build_encoder(
    source: Checkpoint, texts: TextSplit, folder: Path, encoding: Encoding, limits: Thresholds
) -> list[dict[str, Any]]:
    return build_encoder(
        source.encoder,
        texts.seen.texts,
        texts.unseen.texts,
        folder,
        _max_tokens(source),
        replace(encoding, prefixes=prefixes_of(source)),
        max(limits.cosine_seen, limits.cosine_unseen),
    )


def texts_outside(bundle: Path) -> float | None:
    """Return which share of its catalog's texts a bundle reports as out of its encoder's domain;
    None where it has no domain."""
    share: float | None = manifests.read(bundle).reports.get("encoder", {}).get(OUTSIDE)
    return share


def _text_domain(
    source: Checkpoint, texts: TextSplit, folder: Path, encoder_of: Path | None
) -> tuple[Tensors, float | None]:
    """Return the tensors of the domain of the encoder in `folder`, which `encoder_of` had before if
    it is given, and the share of the catalog's texts that are out of it."""
    encoder = TextEncoder(folder, _text_dim(source), _max_tokens(source), prefixes_of(source))
    domain = domain_of_encoder(encoder_of) if encoder_of is not None else {}
    domain = domain or fit_text_domain(encoder, texts.seen.texts, texts.unseen.texts)
    return domain, share_outside(encoder, domain, source.texts)


def _copy_encoder(bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """Copy a bundle's encoder and return what its manifest reports of the int8 forms."""
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copyfile(bundle / name, folder / name)
    forms: list[dict[str, Any]] = manifests.read(bundle).reports.get("encoder", {}).get("forms", [])
    return forms


def tier_of(bundle: Path, default: str) -> str:
    """Return the tier of a bundle's encoder, or a default where its manifest names none."""
    return str(manifests.read(bundle).reports.get("encoder", {}).get("tier", default))


def _text_dim(source: Checkpoint) -> int:
    """Return t, the width of texts' vectors."""
    return int(source.tensors["item.text"].shape[1])


def _max_tokens(source: Checkpoint) -> int:
    """Return the number of tokens at which the policy's own texts were cut."""
    return int(source.settings["config"]["max_tokens"])


def prefixes_of(source: Checkpoint) -> Prefixes:
    """Return what the policy's language model read before texts."""
    config = source.settings["config"]
    return Prefixes(config.get("item_prefix") or "", config.get("query_prefix") or "")


def _seal(source: Checkpoint, folder: Path, reports: dict[str, Any], seed: int) -> Manifest:
    """Write golden.json and the manifest, with the hashes of all files."""
    settings = source.settings
    config = settings["config"]
    n_items, dim = source.tensors["item.vectors"].shape
    exploration = {name: config[name] for name in types_of(Exploration) if name in config}
    fields: dict[str, Any] = {
        "app": settings["app"],
        "release": settings["release"],
        "created": int(time.time()),
        "min_engine": MIN_ENGINE,
        "sizes": Sizes(
            items=n_items,
            dim=dim,
            state=source.tensors["state.decay"].shape[0],
            text=_text_dim(source),
            max_tokens=_max_tokens(source),
        ),
        "exploration": msgspec.convert(exploration, Exploration),
        "kinds": settings["kinds"],
        "prefixes": prefixes_of(source),
        "lineage": Lineage(
            settings["parent"], settings["log_from"], settings["log_to"], settings["data_sha256"]
        ),
        "reports": reports,
    }

    # Golden vectors come from the bundle itself, which opens only once it is sealed: seal it with
    # none, compute them, and seal it again.
    (folder / "golden.json").write_bytes(b"{}")
    write_manifest(folder, **fields)
    golden = _golden(source, Bundle.open(folder), seed)
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    return write_manifest(folder, **fields)


def _golden(source: Checkpoint, bundle: Bundle, seed: int) -> Golden:
    """Return what the bundle computes on this machine for some texts and histories."""
    scorer = Scorer(bundle)
    rng = np.random.default_rng(seed)
    ids = [record["id"] for record in source.records]
    kinds = bundle.manifest.kinds

    rows = rng.choice(len(ids), min(GOLDEN, len(ids)), replace=False)
    texts = [source.texts[row] for row in rows]
    histories = [
        [
            (ids[int(row)], kinds[int(rng.integers(len(kinds)))])
            for row in rng.integers(len(ids), size=length)
        ]
        for length in range(GOLDEN)
    ]
    return Golden(
        texts=[GoldenText(text, scorer.encoder.encode(text).tolist()) for text in texts],
        states=[GoldenState(events, top_after(scorer, events)) for events in histories],
    )
