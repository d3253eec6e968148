"""The quantizer's sub-commands. Heavy libraries are loaded when a command runs, not when it is listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.cli.app import finish

if TYPE_CHECKING:
    from sanderling_quantize.gate import Check

Tier = Annotated[str, typer.Option("--encoder", help="base: the whole teacher in int8; small, nano: students of it.")]
Previous = Annotated[Path | None, typer.Option(help="Bundle of the release before, to compare latencies with.")]
Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]


def quantize(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the policy checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write; must not exist.")],
    encoder: Tier = "small",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of distillation; the encoder's own by default.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="Processor: any (safe on every one), avx2, avx512_vnni, arm64 or wasm.")
    ] = "any",
    corpus: Annotated[Path | None, typer.Option(help="File of further texts to distil on, one a line.")] = None,
    encoder_of: Annotated[Path | None, typer.Option(help="Take the encoder of this earlier bundle.")] = None,
    previous: Previous = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Distil, export, quantize, gate and seal a bundle; what fails the gate is not written (exit status 1).

    Example: sanderling quantize checkpoint/ --out bundle/
    """
    from sanderling_quantize import gate
    from sanderling_quantize.build import GateError, build
    from sanderling_quantize.encoders.make import Encoding

    lines = tuple(corpus.read_text(encoding="utf-8").splitlines()) if corpus else ()
    encoding = Encoding(encoder, steps, target, tuple(line.strip() for line in lines if line.strip()), seed=seed)
    try:
        built = build(checkpoint, out, encoding=encoding, encoder_of=encoder_of, previous=previous)
    except GateError as error:
        finish({"passed": False, "checks": gate.report(error.rows)}, f"{_table(error.rows)}\n{error}", as_json)
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
    finish(result, f"{_table(built.rows)}\nrelease {built.manifest.release}, {size / 1e6:.1f} MB -> {out}", as_json)


def gate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a finished bundle.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of the policy checkpoint that it was made from.")],
    encoder: Tier = "small",
    previous: Previous = None,
    as_json: Json = False,
) -> None:
    """Run the gate alone on a finished bundle: exit status 0 or 1.

    Example: sanderling gate bundle/ --checkpoint checkpoint/
    """
    from sanderling_quantize import gate as gates
    from sanderling_quantize.build import regate

    rows = regate(bundle, checkpoint, encoder, previous)
    passed = all(row.passed for row in rows)
    verdict = "passed" if passed else "did not pass"
    finish({"passed": passed, "checks": gates.report(rows)}, f"{_table(rows)}\n{bundle} {verdict} the gate", as_json)
    if not passed:
        raise typer.Exit(1)


def _table(rows: list[Check]) -> str:
    lines = [f"{'check':<28}{'value':>14}{'threshold':>14}"]
    lines += [
        f"{row.check:<28}{row.value:>14.4f}{row.threshold:>14.4f}  {_verdict(row)}  {row.note}".rstrip() for row in rows
    ]
    return "\n".join(lines)


def _verdict(row: Check) -> str:
    return "ok" if row.passed else "FAILED"
