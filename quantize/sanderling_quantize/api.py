"""`quantize` for Python, which the command calls too. Torch is imported after the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanderling.bundle.manifest import Exploration
from sanderling.errors import TableError
from sanderling.runtime.output_paths import check_creatable, check_new
from sanderling_quantize.manifest_files import ManifestFiles
from sanderling_quantize.settings import checked, types_of

if TYPE_CHECKING:
    from sanderling_quantize.build_bundle import BuildResult


def quantize(
    checkpoint: str | Path,
    out: str | Path,
    *,
    encoder: str = "small",
    steps: int | None = None,
    target: str = "any",
    corpus: str | Path | Sequence[str] = (),
    encoder_of: str | Path | None = None,
    previous: str | Path | None = None,
    exploration: Mapping[str, Any] | None = None,
    experiment: str | Path | None = None,
    rules: str | Path | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> BuildResult:
    """Distil, export, quantize, check and seal a bundle; return its folder, manifest and checks.

    checkpoint, out: the folder that `train` or `retrain` wrote; the bundle's, not there yet.
    encoder: `base`, the whole language model in int8; `small` or `nano`, distilled from it.
    steps: of distillation; the encoder's own by default.
    target: the devices' processor: any, avx2, avx512_vnni, arm64 or wasm.
    corpus: further texts to distil on, or a UTF-8 file with one a line.
    encoder_of: an earlier bundle whose encoder is taken, when the language model has not changed.
    previous: the bundle of the release before, to compare latencies with.
    exploration: fields of `sanderling.bundle.manifest.Exploration` in which the bundle differs from
        the checkpoint, such as `{"epsilon": 0.05, "daily": 20}`. They are written into the
        checkpoint too: retraining has to know how its release explores, and the next releases go
        on with them.
    experiment, rules: TOML files, see docs/EXPERIMENTS.md and docs/RULES.md.
    threads: as many as there are cores unless given.

    Raises `GateError`, and writes nothing, if the bundle does not pass the gate; `OSError` where
    `out` cannot be written or exists; `CheckpointError` or `BundleError` for a damaged folder;
    `TableError` for a corpus that is not UTF-8; `ValueError` for a wrong option.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    check_new(out)
    changes = _changes(exploration, checkpoint)
    texts = _lines(Path(corpus)) if isinstance(corpus, str | Path) else tuple(corpus)
    copied, before, arms, held = map(_path, (encoder_of, previous, experiment, rules))
    files = ManifestFiles(arms, held)
    files.check()
    _check_intact(checkpoint, copied, before)

    from sanderling_quantize.build_bundle import build
    from sanderling_quantize.encoders.build_encoder import Encoding
    from sanderling_quantize.threads import use_threads

    use_threads(threads)
    encoding = Encoding(encoder, steps, target, texts, seed=seed)
    return build(
        checkpoint,
        out,
        encoding=encoding,
        exploration=changes,
        files=files,
        encoder_of=copied,
        previous=before,
    )


def _changes(exploration: Mapping[str, Any] | None, checkpoint: Path) -> dict[str, Any]:
    """Return the checked changes of how devices explore, which go into the checkpoint as well."""
    changes = checked(exploration or {}, types_of(Exploration), "exploration")
    if changes:
        check_creatable(checkpoint / "config.json")
    return changes


def _path(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place)


def _check_intact(checkpoint: Path, *bundles: Path | None) -> None:
    """Raise `CheckpointError` or `BundleError` where a folder to be read is damaged."""
    from sanderling.bundle.reader import Bundle
    from sanderling_quantize.checkpoint import check_complete

    for bundle in filter(None, bundles):
        Bundle.open(bundle, verify=True)
    check_complete(checkpoint)


def _lines(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file that are not blank.

    Raises `TableError`, naming the line, where one is not UTF-8.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{path}: line {number}: expected UTF-8 text, found the byte 0x{data[error.start]:02x};"
            " save the file as UTF-8"
        ) from error

    return tuple(line.strip() for line in text.splitlines() if line.strip())
