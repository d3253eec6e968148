"""The commands that build and check bundles.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanderling.bundle.manifest import Exploration
from sanderling.cli.options import Json, Seed, Threads
from sanderling.cli.output import finish

if TYPE_CHECKING:
    from sanderling_quantize.build_bundle import BuildResult
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
Arms = Annotated[
    Path | None,
    typer.Option(help="TOML file with the arms of an experiment; see `sanderling experiment`."),
]
EncoderOf = Annotated[Path | None, typer.Option(help="Take the encoder of this earlier bundle.")]
RulesFile = Annotated[
    Path | None, typer.Option(help="TOML file with rules that hold for every request of the app.")
]
Corpus = Annotated[
    Path | None, typer.Option(help="UTF-8 file of further texts to distil on, one a line.")
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
    corpus: Corpus = None,
    encoder_of: EncoderOf = None,
    previous: Previous = None,
    exploration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,…",
            help="Explore otherwise than the checkpoint says, and write that into it:"
            f" {', '.join(Exploration.__struct_fields__)}.",
        ),
    ] = None,
    experiment: Arms = None,
    rules: RulesFile = None,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Distil, export, quantize, check and seal a bundle.

    Exits with 1 and writes nothing if the gate fails.

    Example: sanderling quantize checkpoint/ --out bundle/
    """
    from sanderling_quantize import gate
    from sanderling_quantize.api import quantize as run

    try:
        built = run(
            checkpoint,
            out,
            encoder=encoder.value,
            steps=steps,
            target=target.value,
            corpus=corpus or (),
            encoder_of=encoder_of,
            previous=previous,
            exploration=_exploration(exploration or []),
            experiment=experiment,
            rules=rules,
            threads=threads,
            seed=seed,
        )
    except gate.GateError as error:
        result = {"passed": False, "checks": gate.report(error.rows)}
        finish(result, f"{_table(error.rows)}\n{error}", as_json)
        raise typer.Exit(1) from error

    _finish_build(built, out, as_json)


def _finish_build(built: BuildResult, out: Path, as_json: bool) -> None:
    """Print the release, size and checks of a bundle that passed the gate."""
    from sanderling_quantize import gate

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
    encoder: Annotated[
        Encoder | None,
        typer.Option(
            help="Judge by this size's thresholds.", show_default="the one that the bundle names"
        ),
    ] = None,
    previous: Previous = None,
    as_json: Json = False,
) -> None:
    """Run only the gate, on a finished bundle; exits with 1 if it fails.

    Example: sanderling gate bundle/ --checkpoint checkpoint/
    """
    from sanderling_quantize import gate as gates
    from sanderling_quantize.build_bundle import check_bundle, tier_of

    tier = tier_of(bundle, Encoder.small.value) if encoder is None else encoder.value
    rows = check_bundle(bundle, checkpoint, tier, previous)
    passed = all(row.passed for row in rows)
    verdict = "passed" if passed else "failed"
    finish(
        {"passed": passed, "checks": gates.report(rows)},
        f"{_table(rows)}\n{bundle} {verdict} the gate",
        as_json,
    )

    if not passed:
        raise typer.Exit(1)


def _exploration(texts: list[str]) -> dict[str, Any]:
    """Return the values of texts such as `epsilon=0.05,daily=20`; None for `none`.

    Raises `BadParameter` for anything else.
    """
    changes: dict[str, Any] = {}
    for pair in ",".join(texts).split(",") if texts else ():
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not (name and equals and text):
            raise typer.BadParameter(
                f"expected pairs such as epsilon=0.05,daily=20, found {pair!r:.80}"
            )
        changes[name] = None if text == "none" else _number(text)
    return changes


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


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
