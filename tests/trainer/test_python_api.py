"""`train`, `evaluate` and `quantize` from Python; the settings file; how a bundle explores."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv as pc_csv
import pytest
import torch

from sanderling.bundle import manifest
from sanderling.bundle.manifest import Exploration
from sanderling.errors import TableError
from sanderling_quantize import quantize
from sanderling_quantize.card_facts import card_facts
from sanderling_quantize.gate.thresholds import TIERS
from sanderling_quantize.settings import checked, types_of
from sanderling_quantize.threads import use_threads
from sanderling_trainer import ReadOptions, evaluate, train
from sanderling_trainer.data.tables import read_slates
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.settings_file import TYPES, combined, settings_template
from sanderling_trainer.policy.train_options import SETTINGS, TrainOptions
from tests.support import gate_bundles
from tests.support.languages import TITLES
from tests.support.worlds import write_checkerboard, write_language_model

pytestmark = pytest.mark.lab

SMALL = {"dim": 8, "batch_events": 64, "pool": 10, "device": "cpu"}
FIXED = {
    "visit_hours": 0.0,
    "horizon_days": 0.0,
    "dropout": 0.0,
    "id_dropout": 0.2,
    "learning_rate": 0.004,
    "epochs": 2,
    "ridge": 25.0,
    "memory": 30.0,
    "gain": 2.0,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with items.csv, log.csv, a language model, and a settings file."""
    folder = tmp_path_factory.mktemp("world")
    write_checkerboard(folder, users=20, items=12, steps=8)
    model = write_language_model(folder / "model")
    settings = {**SMALL, **FIXED, "language_model": str(model), "app": "shop"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (folder / "train.toml").write_text("\n".join(lines))
    return folder


def config_of(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "config.json").read_text())["config"]


def test_the_command_trains_what_the_function_trains(world, shell, tmp_path):
    """From Arrow tables whose columns have other names the function trains the same policy, to the
    bit, as the command does from files; arguments go before the file, and neither is chosen.
    """
    names = ["buyer", "sku", "when", "reward", "context"]
    log = pc_csv.read_csv(world / "log.csv").rename_columns(names)
    mapped = ReadOptions({"user_id": "buyer", "item_id": "sku", "timestamp": "when"})
    done = train(
        log,
        tmp_path / "python",
        pc_csv.read_csv(world / "items.csv").rename_columns(["sku", "text", "colour"]),
        tables=mapped,
        config=world / "train.toml",
        epochs=1,
    )
    shell.json(
        "train", "--items", world / "items.csv", "--interactions", world / "log.csv",
        "--out", tmp_path / "shell", "--config", world / "train.toml", "--epochs", 1,
    )  # fmt: skip
    policies = [tmp_path / name / "policy.safetensors" for name in ("python", "shell")]
    assert policies[0].read_bytes() == policies[1].read_bytes()
    assert (done.checkpoint, done.release) == (tmp_path / "python", 1)
    assert done.metrics["ranking"]

    found = config_of(done.checkpoint)
    assert {name: found[name] for name in FIXED} == {**FIXED, "epochs": 1}
    assert found == config_of(tmp_path / "shell")


def test_wrong_tables_and_settings_are_named_before_torch(world, tmp_path, monkeypatch):
    """A wrong cell of a frame names its row and column, a misspelt setting the right one; both
    before the training is imported.
    """
    monkeypatch.setitem(__import__("sys").modules, "sanderling_trainer.policy.train", None)
    log = pa.table({"user_id": ["u"], "item_id": ["nothing"], "timestamp": [1]})
    config = world / "train.toml"
    with pytest.raises(TableError, match="the Table, row 1, column `item_id`"):
        train(log, tmp_path / "out", world / "items.csv", config=config)
    with pytest.raises(ValueError, match="found 'epoch'; did you mean epochs"):
        train(log, tmp_path / "out", world / "items.csv", epoch=3)
    with pytest.raises(ValueError, match=r"expected one of the fields .* found 'user'"):
        ReadOptions({"user": "buyer"})
    assert not (tmp_path / "out").exists()


def test_texts_that_the_language_model_cannot_read_are_refused(world, shell, tmp_path):
    """A Chinese catalog is refused before anything is written, with the remedy; with
    --train-anyway it is trained, and the shares stand in summary and metrics."""
    titles = TITLES["Chinese"][:12]
    items = pa.table({"item_id": [f"i{row:03d}" for row in range(12)], "text": titles})
    pc_csv.write_csv(items, tmp_path / "items.csv")
    arguments = (
        "--items", tmp_path / "items.csv", "--interactions", world / "log.csv",
        "--out", tmp_path / "out", "--config", world / "train.toml", "--epochs", 1,
    )  # fmt: skip
    status, _, error = shell.run("train", *arguments)
    assert status == 1
    assert "--language-model" in error
    assert "--train-anyway" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()

    status, out, error = shell.run("train", *arguments, "--train-anyway")
    assert status == 0, error
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["texts"]
    assert found["items"]["unknown"] > 0.5
    assert found["contexts"]["unknown"] == 0.0
    assert f"texts of items by the language model: {found['items']['unknown']:.1%}" in out


def test_slates_are_evaluated_from_tables(shell, tmp_path):
    """Tables in memory give the metrics that the command gives for files."""
    slates = {"user_id": ["u", "u"], "rank": [1, 2], "item_id": ["a", "b"], "score": [2.0, 1.0]}
    later = {"user_id": ["u"], "item_id": ["b"], "timestamp": [9]}
    done = evaluate(pa.table(slates), pa.table(later), k=2)
    assert (done.k, done.users) == (2, 1)
    assert done.metrics["recall@2"]["value"] == 1.0
    for name, table in (("slates", slates), ("later", later)):
        pc_csv.write_csv(pa.table(table), tmp_path / f"{name}.csv")
    files = ("--slates", tmp_path / "slates.csv", "--interactions", tmp_path / "later.csv")
    assert shell.json("evaluate", *files, "--k", 2) == done.metrics


def test_the_template_has_every_setting_with_its_meaning(shell):
    """What --print-config prints is TOML with every field's default and meaning; what the log
    chooses is commented out.
    """
    status, out, _ = shell.run("train", "--print-config")
    assert (status, out) == (0, settings_template() + "\n")
    values = tomllib.loads(out)
    config, options, _ = combined(None, values)
    assert (config, options) == (Config(), TrainOptions(choose=frozenset(SETTINGS)))
    names = {field.name for field in fields(Config)} | {"app", "holdout", "lora", "mlflow"}
    lines = out.splitlines()
    for name in sorted(names):
        (at,) = [
            row for row, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name} =")
        ]
        assert lines[at].startswith("# ") == (name not in values)
        assert lines[at - 1].startswith("# ")
    assert not values.keys() & {*SETTINGS, "choose", "parent"}

    chosen = [line.removeprefix("# ") for line in lines if line.endswith("# chosen by the log")]
    _, _, given = combined(None, tomllib.loads("\n".join(chosen)))
    assert given.keys() == {*SETTINGS} - {"stop_after"}


@pytest.mark.parametrize(("text", "message"), [
    ("epochs = 'six'", "epochs: expected an integer of at least 0, found 'six'"),
    ("epochs = 2.0", "epochs: expected an integer of at least 0, found 2.0"),
    ("dropout = 1", "dropout: expected a number from 0 to 0.9, found 1"),
    ("ridge = inf", "ridge: expected a number above 0, found inf"),
    ("gain = nan", "gain: expected a number of at least 0, found nan"),
    ("epsilon = 1.5", "epsilon: expected a number from 0 to 1, found 1.5"),
    ("daily = -1", "daily: expected an integer from 0 to 1,000,000 or none, found -1"),
    ("scheme = 'greedy'", "scheme: expected mixture, sequential or softmax, found 'greedy'"),
    ("device = 'tpu'", "device: expected auto, cpu or cuda, found 'tpu'"),
    ("app = 'A shop'", "app: expected text that matches ^[a-z0-9]"),
    ("lora = 1", "lora: expected true or false, found 1"),
    ("epoch = 1", "expected the name of a setting, found 'epoch'; did you mean epochs?"),
    ("parent = 1", "expected the name of a setting, found 'parent'"),
    ("epochs = ", "expected TOML, found: Invalid value"),
])  # fmt: skip
def test_a_wrong_settings_file_ends_in_one_line(world, shell, tmp_path, text, message):
    """One line names the file, the key, what was expected and what was found; status 1."""
    (tmp_path / "wrong.toml").write_text(text)
    status, _, err = shell.run(
        "train", "--items", world / "items.csv", "--interactions", world / "log.csv",
        "--out", tmp_path / "out", "--config", tmp_path / "wrong.toml",
    )  # fmt: skip
    assert status == 1
    assert err.startswith(f"sanderling: {tmp_path}/wrong.toml: {message}")
    assert len(err.splitlines()) == 1


def test_exploration_is_held_to_the_bounds_of_the_engine():
    """A configuration takes exactly the values of exploration that a bundle's manifest takes."""
    for name, kind in types_of(Exploration).items():
        assert TYPES[name] == kind
    for name, value in {"epsilon": -0.1, "pool": 10_001, "guarded": 1.5, "temperature": 0}.items():
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            Config(**{name: value})
        with pytest.raises(ValueError, match=f"^here: {name}: expected"):
            checked({name: value}, types_of(Exploration), "here")


def test_a_bundle_may_explore_otherwise_than_its_checkpoint(shared, shell, tmp_path, monkeypatch):
    """The bundle passes its gate with the new settings, and the checkpoint has them too, so that
    retraining knows them; a wrong value changes neither.
    """
    monkeypatch.setenv("SANDERLING_KERNELS", "numpy")
    folder, _ = shared("gate", gate_bundles.make)
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(folder / "checkpoint", checkpoint)
    command = ("quantize", checkpoint, "--encoder", "base", "--encoder-of", folder / "bundle")
    before = config_of(checkpoint)

    status, _, err = shell.run(*command, "--out", tmp_path / "b", "--exploration", "epsilon=2")
    assert (status, "epsilon: expected a number from 0 to 1, found 2" in err) == (1, True)
    assert config_of(checkpoint) == before
    assert not (tmp_path / "b").exists()

    built = quantize(
        checkpoint,
        tmp_path / "python",
        encoder_of=folder / "bundle",
        exploration={"epsilon": 0.5, "guarded": 1, "daily": 20},
    )
    plan = built.manifest.exploration
    assert (plan.epsilon, plan.guarded, plan.daily, plan.pool) == (0.5, 1, 20, before["pool"])
    assert built.manifest.reports["card"] == card_facts(checkpoint)
    assert built.manifest.reports["encoder"]["tier"] == "base"  # the copied encoder's, not "small"
    assert config_of(checkpoint) == {**before, "epsilon": 0.5, "guarded": 1, "daily": 20}

    change = ("--exploration", "epsilon=0.05,daily=none", "--exploration", "scheme=mixture")
    shell.json(*command, "--out", tmp_path / "shell", *change)
    plan = manifest.read(tmp_path / "shell").exploration
    assert (plan.epsilon, plan.guarded, plan.daily, plan.scheme) == (0.05, 1, None, "mixture")
    assert msgspec.to_builtins(plan).items() <= config_of(checkpoint).items()

    judged = shell.json("gate", tmp_path / "shell", "--checkpoint", checkpoint)
    limits = {row["check"]: row["threshold"] for row in judged["checks"]}
    assert limits["cosine, seen texts"] == TIERS["base"].cosine_seen


def test_a_checkpoint_is_looked_at_without_a_bundle(shared, shell, tmp_path, monkeypatch):
    """`recommend --checkpoint` ranks almost as the bundle made of it, unknown items ignored, and
    prints titles.
    """
    monkeypatch.setenv("SANDERLING_KERNELS", "numpy")
    folder, _ = shared("gate", gate_bundles.make)
    log = tmp_path / "log.csv"
    rows = [f"u{row % 40},i{row % 7 * 11:03d},{row}" for row in range(200)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows, "u0,gone,900"]) + "\n")

    def slates(*source: object) -> dict[str, list[str]]:
        out = tmp_path / "slates.csv"
        shell.json("recommend", *source, "--interactions", log, "--out", out)
        return read_slates(out)

    device = slates("--bundle", folder / "bundle")
    first_look = slates("--checkpoint", folder / "checkpoint")
    shared_items = [len({*device[user]} & {*first_look[user]}) for user in device]
    assert device.keys() == first_look.keys()
    assert sum(shared_items) > 9.5 * len(device)

    look = ("recommend", "--checkpoint", folder / "checkpoint", "--interactions", log)
    _, out, _ = shell.run(*look, "--user", "u0", "--k", 3)
    lines = out.splitlines()
    assert lines[0].startswith("u0: 6 events, the latest: gone · ")
    assert [line.split()[-1] for line in lines[1:]] == first_look["u0"][:3]
    assert all(" number " in line for line in lines[1:])

    status, _, err = shell.run(*look[:2], tmp_path / "none", *look[3:])
    assert (status, "none: expected a policy checkpoint, found no encoder" in err) == (1, True)


def test_threads_are_those_of_torch_and_arrow():
    """A number of threads is torch's and Arrow's; none changes nothing."""
    before = torch.get_num_threads(), pa.cpu_count()
    try:
        use_threads(None)
        assert (torch.get_num_threads(), pa.cpu_count()) == before
        use_threads(3)
        assert (torch.get_num_threads(), pa.cpu_count()) == (3, 3)
    finally:
        torch.set_num_threads(before[0])
        pa.set_cpu_count(before[1])
