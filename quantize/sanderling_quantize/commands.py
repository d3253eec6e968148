"""The quantizer's sub-commands. Heavy libraries are loaded when a command runs, not when it is listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.cli import finish

if TYPE_CHECKING:
    from sanderling_quantize.gate import Check

Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]


def quantize(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the policy checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write; must not exist.")],
    layers: Annotated[int, typer.Option(min=1, help="Layers of the teacher that the student keeps.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of distillation.")] = 400,
    encoder_of: Annotated[Path | None, typer.Option(help="Take the encoder of this earlier bundle.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Distil, export, quantize, gate and seal a bundle; what fails the gate is not written (exit status 1).

    Example: sanderling quantize checkpoint/ --out bundle/
    """
    from sanderling_quantize import gate
    from sanderling_quantize.build import GateError, build
    from sanderling_quantize.distil import Distillation
    from sanderling_quantize.gate import Thresholds

    settings = Distillation(layers=layers, steps=steps, seed=seed)
    try:
        built = build(checkpoint, out, settings=settings, thresholds=Thresholds(), encoder_of=encoder_of)
    except GateError as error:
        finish({"passed": False, "checks": gate.report(error.rows)}, f"{_table(error.rows)}\n{error}", as_json)
        raise typer.Exit(1) from error
    size = sum(entry.length for entry in built.manifest.files.values())
    result = {
        "passed": True,
        "out": str(out),
        "release": built.manifest.release,
        "bytes": size,
        "checks": gate.report(built.rows),
    }
    finish(result, f"{_table(built.rows)}\nrelease {built.manifest.release}, {size / 1e6:.1f} MB -> {out}", as_json)


def gate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a finished bundle.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of the policy checkpoint that it was made from.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run the gate alone on a finished bundle: exit status 0 or 1.

    Example: sanderling gate bundle/ --checkpoint checkpoint/
    """
    from sanderling_quantize import gate as gates
    from sanderling_quantize.build import regate
    from sanderling_quantize.distil import Distillation
    from sanderling_quantize.gate import Thresholds

    rows = regate(bundle, checkpoint, settings=Distillation(seed=seed), thresholds=Thresholds())
    passed = all(row.passed for row in rows)
    verdict = "passed" if passed else "did not pass"
    finish({"passed": passed, "checks": gates.report(rows)}, f"{_table(rows)}\n{bundle} {verdict} the gate", as_json)
    if not passed:
        raise typer.Exit(1)


def _table(rows: list[Check]) -> str:
    lines = [f"{'check':<26}{'value':>14}{'threshold':>14}"]
    lines += [
        f"{row.check:<26}{row.value:>14.4f}{row.threshold:>14.4f}  {'ok' if row.passed else 'FAILED'}" for row in rows
    ]
    return "\n".join(lines)
