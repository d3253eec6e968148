"""The lab's sub-commands. Heavy libraries are loaded when a command runs, not when it is listed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sanderling.cli.app import finish

TOMORROW = 86_400

Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]


def train(
    items: Annotated[Path, typer.Option(help="Items: item_id, text, any attributes; .parquet or .csv.")],
    interactions: Annotated[
        Path, typer.Option(help="Log: user_id, item_id, timestamp, optional reward, kind, context; .parquet or .csv.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the policy checkpoint to write.")],
    language_model: Annotated[str, typer.Option(help="Hugging Face id or folder; minilm is packaged.")] = "minilm",
    app: Annotated[str, typer.Option(help="Name of the app that the bundle will be for.")] = "demo",
    holdout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the latest time to judge by.")] = 0.2,
    adapt: Annotated[bool, typer.Option("--adapt", help="Fine-tune the language model on the log (LoRA).")] = False,
    cluster: Annotated[
        str | None, typer.Option(help="Encode and learn on this Ray cluster; auto finds one or starts one here.")
    ] = None,
    visit_hours: Annotated[
        float, typer.Option(min=0.0, help="Predict whole visits, runs of events without a longer gap; 0: each event.")
    ] = 0.0,
    horizon_days: Annotated[
        float, typer.Option(min=0.0, help="With visits: predict what is liked so many days later.")
    ] = 14.0,
    wandb: Annotated[str | None, typer.Option(help="Also log the curves to this Weights & Biases project.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Learn a policy from two tables: a supervised warm start, then the off-policy policy gradient.

    Example: sanderling train --items items.parquet --interactions log.parquet --out checkpoint/
    """
    from sanderling_trainer.data.tables import read_catalogue, read_interactions
    from sanderling_trainer.policy.config import Config
    from sanderling_trainer.policy.train import train as run

    catalogue = read_catalogue(items)
    log = read_interactions(interactions, catalogue, latest=int(time.time()) + TOMORROW)
    chosen: dict[str, Any] = {"language_model": language_model, "seed": seed}
    config = Config.for_visits(visit_hours, horizon_days, **chosen) if visit_hours else Config(**chosen)
    trained = run(catalogue, log, out, config, app=app, holdout=holdout, adapted=adapt, address=cluster, wandb=wandb)
    result = {"out": str(out), "seconds": trained.seconds, "metrics": trained.metrics}
    finish(result, f"{_ranking(trained.metrics)}\ncheckpoint of release 1 -> {out}", as_json)


def evaluate(
    slates: Annotated[Path, typer.Option(help="Slates: user_id, rank, item_id, score.")],
    interactions: Annotated[Path, typer.Option(help="The later log: user_id, item_id, timestamp, optional reward.")],
    items: Annotated[Path | None, typer.Option(help="Items, for the coverage; else all items that occur.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Length at which slates are cut.")] = 10,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Judge slates by what users liked later: full ranking, with bootstrap intervals over users.

    Example: sanderling evaluate --slates slates.parquet --interactions later.parquet
    """
    import numpy as np

    from sanderling_trainer.data.tables import read_catalogue, read_likes, read_slates
    from sanderling_trainer.judge.metrics import evaluate as judge

    found, liked = read_slates(slates), read_likes(interactions)
    seen = {item for slate in found.values() for item in slate} | {item for wanted in liked.values() for item in wanted}
    count = len(read_catalogue(items)) if items else len(seen)
    metrics = judge(found, liked, k, count, np.random.default_rng(seed))
    ndcg = metrics[f"ndcg@{k}"]
    text = f"nDCG@{k} {ndcg['value']:.4f} [{ndcg['low']:.4f}, {ndcg['high']:.4f}] over {metrics['users']} users"
    finish(metrics, text, as_json)


def collect(
    store: Annotated[str, typer.Option(help="Folder, or object store's URL, of the segments.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    token: Annotated[
        str | None, typer.Option(envvar="SANDERLING_TOKEN", help="One more token, beside those of `sanderling tokens`.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Receive events from devices until it is stopped; each answer comes after the events are durable.

    Example: sanderling collect --store events/ --port 8080 --token secret
    """
    from sanderling_trainer.fleet.collector import serve

    serve(store, host, port, token)
    finish({"store": store, "stopped": True}, f"stopped; segments are in {store}", as_json)


def retrain(
    events: Annotated[str, typer.Option(help="Folder, or object store's URL, that `collect` wrote.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of the policy that serves.")],
    out: Annotated[Path, typer.Option(help="Folder of the next checkpoint.")],
    bundle: Annotated[Path | None, typer.Option(help="Also build and gate the next bundle here.")] = None,
    encoder: Annotated[str, typer.Option(help="The bundle's encoder: base, small or nano.")] = "small",
    encoder_of: Annotated[Path | None, typer.Option(help="Take the encoder of this earlier bundle.")] = None,
    ship_anyway: Annotated[
        bool, typer.Option("--ship-anyway", help="Write the checkpoint even where the release gate holds it.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Learn off policy from the devices' logged propensities, and judge the candidate against the serving policy.

    Where the release gate holds the candidate there is no checkpoint, metrics.json says why, and the exit status is 3.

    Example: sanderling retrain --events events/ --checkpoint checkpoint/ --out next/ --bundle releases/2
    """
    from sanderling_quantize.build import build
    from sanderling_quantize.encoders.make import Encoding
    from sanderling_trainer.fleet.retrain import retrain as run

    done = run(events, checkpoint, out, seed=seed, ship_anyway=ship_anyway)
    if bundle is not None and done.written:
        build(out, bundle, encoding=Encoding(encoder, seed=seed), encoder_of=encoder_of, previous=encoder_of)
    result = {
        "release": done.release,
        "out": str(out),
        "bundle": str(bundle or "") if done.written else "",
        "written": done.written,
        "held": done.reasons,
        "metrics": done.metrics,
    }
    held = "\n".join(f"the release gate holds it: {reason}" for reason in done.reasons)
    made = (
        f"checkpoint of release {done.release} -> {out}" if done.written else f"no checkpoint of release {done.release}"
    )
    finish(result, "\n".join(filter(None, [_unfit(done.metrics["log"]), held, made])), as_json)
    if not done.written:
        raise typer.Exit(3)


def _unfit(log: Mapping[str, Any]) -> str:
    """Name what is to be done about installs that cannot be learned from."""
    unfit = len({*log["incomplete"], *log["doubled"]})
    return f"left out: {unfit} incomplete or doubled installs; `sanderling renew` mends that" if unfit else ""


def release(
    bundle: Annotated[Path, typer.Option(help="Folder of the finished bundle.")],
    repository: Annotated[Path, typer.Option(help="Folder of the signed releases; made when it is not there.")],
    keys: Annotated[Path, typer.Option(help="Folder of the signing keys; made with the repository.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sign a bundle and publish it as the newest release; any web server may serve the repository's files.

    Example: sanderling release --bundle releases/2 --repository repository/ --keys keys/
    """
    from sanderling_trainer.fleet import release as releases

    if not (repository / "metadata").exists():
        root = releases.create_repository(repository, keys)
        (repository / "root.json").write_bytes(root)
    number = releases.publish(bundle, repository, keys)
    finish({"release": number, "root": str(repository / "root.json")}, f"release {number} is published", as_json)


def report(
    summary: Annotated[Path, typer.Option(help="The demo's summary.json.")],
    out: Annotated[Path, typer.Option(help="The HTML page to write.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw a summary as a self-contained HTML page.

    Example: sanderling report --summary demo/summary.json --out report.html
    """
    import json

    from sanderling_trainer.fleet.report import table, write_report

    content = json.loads(summary.read_text(encoding="utf-8"))
    write_report(content, out)
    finish({"out": str(out)}, f"{table(content)}\n-> {out}", as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of everything that the demo makes; replaced.")] = Path("demo"),
    items: Annotated[Path | None, typer.Option(help="Items of your own instead of MovieLens-100K.")] = None,
    interactions: Annotated[Path | None, typer.Option(help="Interactions of your own.")] = None,
    collector_down: Annotated[
        str, typer.Option(help="Unplug the collector for so long while devices run, as in 20s.")
    ] = "0s",
    kill_device: Annotated[
        bool, typer.Option("--kill-device", help="Kill a device in mid-run; start it again.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run the whole circle on real data: train, quantize, devices, collect, retrain, ship, devices again, report.

    Example: sanderling demo --out demo/ --collector-down 20s --kill-device
    """
    from sanderling_trainer.fleet.demo import Demo, Settings
    from sanderling_trainer.policy.config import Config

    down = float(collector_down.removesuffix("s"))
    settings = Settings(collector_down_s=down, kill_device=kill_device, config=replace(Config(), seed=seed))
    finished = Demo(out, settings).run(items, interactions)
    finish(finished.summary, finished.text, as_json)


def _ranking(metrics: dict[str, object]) -> str:
    lines = []
    for table in metrics.get("ranking", []):  # type: ignore[attr-defined]
        for model in table["models"]:
            ndcg = next(value for name, value in model.items() if name.startswith("ndcg"))
            lines.append(
                f"{table['protocol']:<12}{model['name']:<14}nDCG {ndcg['value']:.4f}  ({table['users']} users)"
            )
    return "\n".join(lines)
