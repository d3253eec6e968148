"""The commands that build and check bundles.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.cli.options import Json, Seed, check_new
from sanderling.cli.output import finish
from sanderling.errors import TableError

if TYPE_CHECKING:
    from sanderling_quantize.gate import Check


class Encoder(StrEnum):
    """How large the encoder is: the keys of `student_config.TIERS`."""

    base = "base"
    small = "small"
    nano = "nano"


class Target(StrEnum):
    """The processor that int8 weights are meant for: the keys of `int8_search.BITS`."""

    any = "any"
    avx2 = "avx2"
    avx512_vnni = "avx512_vnni"
    arm64 = "arm64"
    wasm = "wasm"


Tier = Annotated[
    Encoder,
    typer.Option(
        "--encoder", help="base: the whole language model in int8; small, nano: distilled from it."
    ),
]
Previous = Annotated[
    Path | None, typer.Option(help="Bundle of the previous release, to compare latencies with.")
]


def quantize(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the policy checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write; must not exist.")],
    encoder: Tier = Encoder.small,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, help="Steps of distillation; the encoder's own by default."),
    ] = None,
    target: Annotated[
        Target, typer.Option(help="Processor of the devices; `any` is safe on all.")
    ] = Target.any,
    corpus: Annotated[
        Path | None, typer.Option(help="UTF-8 file of further texts to distil on, one a line.")
    ] = None,
    encoder_of: Annotated[
        Path | None, typer.Option(help="Take the encoder of this earlier bundle.")
    ] = None,
    previous: Previous = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Distil, export, quantize, check and seal a bundle.

    Exits with 1 and writes nothing if the gate fails.

    Example: sanderling quantize checkpoint/ --out bundle/
    """
    check_new(out)
    texts = _lines(corpus) if corpus else ()

    # Importing torch takes seconds: what does not need it is checked before.
    from sanderling.bundle.reader import Bundle
    from sanderling_quantize.checkpoint import check_complete

    for bundle in (encoder_of, previous):
        if bundle is not None:
            Bundle.open(bundle, verify=True)
    check_complete(checkpoint)

    from sanderling_quantize import gate
    from sanderling_quantize.build_bundle import GateError, build
    from sanderling_quantize.encoders.build_encoder import Encoding

    encoding = Encoding(encoder.value, steps, target.value, texts, seed=seed)
    try:
        built = build(checkpoint, out, encoding=encoding, encoder_of=encoder_of, previous=previous)
    except GateError as error:
        finish(
            {"passed": False, "checks": gate.report(error.rows)},
            f"{_table(error.rows)}\n{error}",
            as_json,
        )
        raise typer.Exit(1) from error

    size = sum(entry.length for entry in built.manifest.files.values())
    result = {
        "passed": True,
        "out": str(out),
        "release": built.manifest.release,
        "bytes": size,
        "encoder": built.manifest.reports["encoder"],
        "checks": gate.report(built.rows),
    }
    finish(
        result,
        f"{_table(built.rows)}\nrelease {built.manifest.release}, {size / 1e6:.1f} MB -> {out}",
        as_json,
    )


def gate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a finished bundle.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of the policy checkpoint that it was built from.")
    ],
    encoder: Tier = Encoder.small,
    previous: Previous = None,
    as_json: Json = False,
) -> None:
    """Run only the gate, on a finished bundle; exits with 1 if it fails.

    Example: sanderling gate bundle/ --checkpoint checkpoint/
    """
    from sanderling_quantize import gate as gates
    from sanderling_quantize.build_bundle import check_bundle

    rows = check_bundle(bundle, checkpoint, encoder.value, previous)
    passed = all(row.passed for row in rows)
    verdict = "passed" if passed else "failed"
    finish(
        {"passed": passed, "checks": gates.report(rows)},
        f"{_table(rows)}\n{bundle} {verdict} the gate",
        as_json,
    )

    if not passed:
        raise typer.Exit(1)


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


def _table(rows: list[Check]) -> str:
    lines = [f"{'check':<28}{'value':>14}{'threshold':>14}"]
    lines += [
        (
            f"{row.check:<28}{row.value:>14.4f}{row.threshold:>14.4f}  {_verdict(row)}  {row.note}"
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _verdict(row: Check) -> str:
    return "ok" if row.passed else "FAILED"
