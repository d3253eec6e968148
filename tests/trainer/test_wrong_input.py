"""Wrong input of over sixty kinds: each ends in one line or in usage, never in a traceback, and
before torch is imported where tables and options tell.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.bundles import write_bundle
from tests.support.shell import Shell

pytestmark = pytest.mark.lab

HEAD = "user_id,item_id,timestamp\n"
TRAIN = "train --items items.csv --interactions log.csv --out c"
LOG = "train --items items.csv --out c --interactions"
ITEMS = "train --interactions log.csv --out c --items"
DAY_S = 86_400

# Files, by name: text, bytes, or a table.
FILES: dict[str, str | bytes | pa.Table | dict] = {
    "items.csv": "item_id,text\ni,shoe\nj,hat\n",
    "log.csv": f"{HEAD}u,i,1\nu,j,2\n",
    "shop.xlsx": "x",
    "no_extension": "x",
    "empty.csv": "",
    "header.csv": HEAD,
    "semicolons.csv": "user_id;item_id;timestamp\nu;i;1\n",
    "ragged.csv": f"{HEAD}u,i,1,2\n",
    "open.csv": f'{HEAD}u,i,1\n"u,i,2\n',
    "closed.csv": f'{HEAD}"u"x,i,1\n',
    "latin1.csv": f"{HEAD}caf\xe9,i,1\n".encode("latin-1"),
    "utf16.csv": f"{HEAD}u,i,1\n".encode("utf-16"),
    "csv.parquet": f"{HEAD}u,i,1\n",
    "cut.csv.gz": gzip.compress(HEAD.encode() + b"u,i,1\n" * 999)[:-9],
    "plain.csv.gz": f"{HEAD}u,i,1\n",
    "nothing/readme.txt": "x",
    "both/1.csv": f"{HEAD}u,i,1\n",
    "both/2.parquet": pa.table({"user_id": ["u"]}),
    "differ/1.csv": f"{HEAD}u,i,1\n",
    "differ/2.csv": "user,item_id,timestamp\nu,i,1\n",
    "no_user.csv": "who,item_id,timestamp\nu,i,1\n",
    "twice.csv": "user_id,item_id,timestamp,item_id\nu,i,1,j\n",
    "with_id.csv": "item_id,text,id\ni,shoe,1\n",
    "no_id.csv": "item_id,text\n,shoe\n",
    "long_id.csv": f"{HEAD}u,{'x' * 600},1\n",
    "unknown.csv": f"{HEAD}u,k,1\n",
    "no_user_cell.csv": f"{HEAD},i,1\n",
    "words.csv": f"{HEAD}u,i,yesterday\n",
    "american.csv": f"{HEAD}u,i,12/31/2011 8:26\n",
    "milliseconds.csv": f"{HEAD}u,i,1700000000000\n",
    "future.csv": f"{HEAD}u,i,{int(time.time()) + 9 * DAY_S}\n",
    "stars.csv": "user_id,item_id,timestamp,reward\nu,i,1,5\n",
    "good.csv": "user_id,item_id,timestamp,reward\nu,i,1,good\n",
    "no_kind.csv": "user_id,item_id,timestamp,kind\nu,i,1,\n",
    "disliked.csv": "user_id,item_id,timestamp,reward\nu,i,1,-1\nu,j,2,-1\n",
    "list_id.parquet": pa.table({"item_id": [["i"]], "text": ["shoe"]}),
    "bool_id.parquet": pa.table({"item_id": [True], "text": ["shoe"]}),
    "half_id.parquet": pa.table({"item_id": [0.5], "text": ["shoe"]}),
    "late.parquet": pa.table(
        {"item_id": ["i"], "text": ["s"], "until": pa.array([2**40], pa.timestamp("s"))}
    ),
    "duration.parquet": pa.table(
        {"user_id": ["u"], "item_id": ["i"], "timestamp": pa.array([1], pa.duration("ns"))}
    ),
    "slates.csv": "user_id,rank,item_id,score\nu,1,i,1\n",
    "gap.csv": "user_id,rank,item_id,score\nu,2,i,1\n",
    "repeated.csv": "user_id,rank,item_id,score\nu,1,i,1\nu,2,i,1\n",
    "mpnet/config.json": {"model_type": "mpnet", "hidden_act": "gelu"},
    "corpus.txt": "caf\xe9".encode("latin-1"),
    "list.json": "[]",
    "summary.json": "not JSON",
}

# What is typed, and below it what the last line of the answer has; `usage`: exit status 2.
KINDS = """
train --items none.csv --interactions log.csv --out c
    none.csv: expected a file or a folder, found nothing
{LOG} none.csv
    none.csv: expected a file or a folder, found nothing
{LOG} shop.xlsx
    found `.xlsx`; convert or rename the file
{LOG} no_extension
    found none; convert or rename the file
{LOG} empty.csv
    empty.csv: expected a header and rows, found an empty file
{LOG} header.csv
    header.csv: expected at least one row, found none
{LOG} semicolons.csv
    found user_id;item_id;timestamp; add or rename
{LOG} ragged.csv
    ragged.csv, row 1: expected 3 cells, as many as the header has, found 4
{LOG} open.csv
    open.csv, row 2: expected a double quote that closes the one opened in this row
{LOG} closed.csv
    closed.csv, row 1: expected a comma or the end of the row after a closing double quote
{LOG} latin1.csv
    latin1.csv, line 2: expected UTF-8 text, found the byte 0xe9
{LOG} utf16.csv
    utf16.csv, line 1: expected UTF-8 text, found the byte 0xff
{LOG} csv.parquet
    csv.parquet: expected a Parquet file, found one that cannot be read
{LOG} cut.csv.gz
    cut.csv.gz: expected a CSV file, found one that cannot be read
{LOG} plain.csv.gz
    plain.csv.gz: expected a CSV file, found one that cannot be read
{LOG} nothing
    nothing: expected Parquet or CSV files in the folder, found none
{LOG} both
    both: expected files of one kind in the folder, found Parquet and CSV
{LOG} differ
    differ/2.csv: expected the columns of differ/1.csv, user_id, item_id, timestamp, found user,
{LOG} ftp://host/log.csv
    ftp://host/log.csv: expected a path, or the URL of an object store
{LOG} no_user.csv
    found who, item_id, timestamp; add or rename user_id
{LOG} twice.csv
    twice.csv: expected each column once, found 'item_id' more than once
{ITEMS} with_id.csv
    found a column `id`; rename it
{ITEMS} no_id.csv
    no_id.csv, row 1, column `item_id`: expected an item id of 1 to 512 characters, found nothing
{LOG} long_id.csv
    long_id.csv, row 1, column `item_id`: expected an item id of 1 to 512 characters
{LOG} unknown.csv
    unknown.csv, row 1, column `item_id`: expected one of the 2 items of the catalog, found `k`
{LOG} no_user_cell.csv
    column `user_id`: expected a user id of 1 to 512 characters, found nothing; 1 row lacks a value
{LOG} words.csv
    words.csv, row 1, column `timestamp`: expected seconds since 1970
{LOG} american.csv
    ISO 8601 time, not later than
{LOG} milliseconds.csv
    (not milliseconds)
{LOG} future.csv
    future.csv, row 1, column `timestamp`: expected
{LOG} stars.csv
    stars.csv, row 1, column `reward`: expected a number from -1 to 1, found `5`
{LOG} good.csv
    good.csv, row 1, column `reward`: expected a number from -1 to 1, found `good`
{LOG} no_kind.csv
    no_kind.csv, row 1, column `kind`: expected a kind of 1 to 512 characters, found nothing
{LOG} disliked.csv
    expected at least one reward above 0
{ITEMS} list_id.parquet
    column `item_id`: expected text or a whole number, found `the type list<
{ITEMS} bool_id.parquet
    column `item_id`: expected text or a whole number, found `the type bool`
{ITEMS} half_id.parquet
    column `item_id`: expected text or a whole number, found `0.5`
{ITEMS} late.parquet
    late.parquet, column `until`: expected values that can be shown, times up to the year 9999
{LOG} duration.parquet
    duration.parquet, row 1, column `timestamp`: expected seconds
train --interactions log.csv --out c
    found user_id, item_id, timestamp; add or rename text
{TRAIN} --columns CustomerID
    usage
{TRAIN} --columns customer=CustomerID
    usage
{TRAIN} --columns user_id=a,user_id=b
    usage
{TRAIN} --columns reward=Rating
    found user_id, item_id, timestamp; add or rename Rating
{TRAIN} --time-format %H:%M
    usage
{TRAIN} --time-format %d.%m.%Y
    column `timestamp`: expected a time such as %d.%m.%Y
{LOG} no_user_cell.csv --drop-incomplete
    no_user_cell.csv: expected a row with all values, found none
{TRAIN} --app Shop!
    usage
train --items items.csv --interactions log.csv --out log.csv/c
    log.csv/c: expected a folder above it, found the file
train --items items.csv --interactions log.csv --out log.csv
    log.csv: expected a folder, found a file
{TRAIN} --language-model bundle
    bundle: expected a Hugging Face id, or the folder of a language model
{TRAIN} --language-model mpnet
    mpnet: expected a language model of the kinds bert, roberta
{TRAIN} --language-model ./no/such/model
    found no such folder
{TRAIN} --wandb shop
    wandb needs the package wandb: pip install
{TRAIN} --seed -1
    usage
{TRAIN} --holdout nan
    usage
{TRAIN} --device tpu
    usage
recommend --bundle nothing --interactions log.csv --out s.csv
    expected a bundle with a manifest.json in nothing
recommend --bundle bundle --interactions none.csv --out s.csv
    none.csv: expected a file or a folder, found nothing
recommend --bundle bundle --interactions open.csv --out s.csv
    open.csv, row 2: expected a double quote
recommend --bundle bundle --interactions log.csv --out s.xlsx
    s.xlsx: expected a file name ending in .csv or .parquet
recommend --bundle bundle --interactions log.csv --out bundle
    bundle: expected a file name ending in .csv or .parquet
recommend --bundle bundle --interactions log.csv --out s.csv --k 0
    usage
evaluate --slates log.csv --interactions log.csv
    log.csv: expected the columns user_id, rank, item_id, score, found
evaluate --slates gap.csv --interactions log.csv
    gap.csv, row 1, column `rank`: expected 1 as the next rank of u, found `2`
evaluate --slates repeated.csv --interactions log.csv
    repeated.csv, row 2, column `item_id`: expected an item new to the slate of u
evaluate --slates slates.csv --interactions stars.csv
    stars.csv, row 1, column `reward`: expected a number from -1 to 1
quantize nothing --out b
    nothing: expected a policy checkpoint, found no encoder
quantize nothing --out bundle
    bundle: expected nothing there yet
quantize nothing --out b --corpus corpus.txt
    corpus.txt: line 1: expected UTF-8 text, found the byte 0xe9
quantize nothing --out b --encoder-of nothing
    expected a bundle with a manifest.json in nothing
retrain --events e --checkpoint nothing --out n --items no_id.csv
    no_id.csv, row 1, column `item_id`: expected an item id
retrain --events e --checkpoint nothing --out n --bundle bundle
    bundle: expected nothing there yet
report --summary summary.json --out r.html
    summary.json: expected the summary.json of `sanderling demo`, found no JSON
report --summary list.json --out bundle
    bundle: expected the name of a file, found a folder
demo --items items.csv
    usage
demo --items items.csv --interactions unknown.csv --out d
    unknown.csv, row 1, column `item_id`: expected one of the 2 items
demo --out log.csv
    log.csv: expected a folder, found a file
""".strip().splitlines()

CASES = [
    (line.format(TRAIN=TRAIN, LOG=LOG, ITEMS=ITEMS), message.strip())
    for line, message in zip(KINDS[::2], KINDS[1::2], strict=True)
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files and a bundle."""
    folder = tmp_path_factory.mktemp("shop")
    write_bundle(folder / "bundle")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        elif isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def check_answer(status: int, err: str, message: str) -> None:
    """Raise `AssertionError` unless an answer is usage, or a last line with the message."""
    assert "Traceback" not in err
    if message == "usage":
        assert status == 2, err
        assert "Usage: sanderling" in err
        return
    assert status == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("sanderling: ")
    assert message in last


def test_there_are_sixty_kinds() -> None:
    """The list has at least the sixty kinds that were asked for, each once."""
    assert len({arguments for arguments, _ in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize(("arguments", "message"), CASES)
def test_wrong_input_ends_in_one_line(
    shop: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    """A last line that names what is wrong, or the usage; nothing is written."""
    monkeypatch.chdir(shop)
    before = sorted(shop.rglob("*"))
    status, _, err = shell.run(*arguments.split())
    check_answer(status, err, message)
    assert sorted(shop.rglob("*")) == before


MEASURE = """
import sys, time
from sanderling.cli import main
sys.argv = ["sanderling", *sys.argv[1:]]
try:
    main()
finally:
    sys.stderr.flush()
    print("torch" in sys.modules)
"""


@pytest.fixture
def fresh(shop: Path) -> Callable[[str], tuple[subprocess.CompletedProcess[str], float]]:
    """Runs a command in a new process; returns it with its seconds. Stdout ends in whether torch
    was imported.
    """

    def run(arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
        start = time.perf_counter()
        command = [sys.executable, "-c", MEASURE, *arguments.split()]
        done = subprocess.run(
            command, cwd=shop, capture_output=True, text=True, env=os.environ, timeout=120
        )
        return done, time.perf_counter() - start

    return run


@pytest.mark.parametrize("arguments", [
    f"{LOG} words.csv",
    f"{LOG} disliked.csv",
    f"{ITEMS} no_id.csv",
    f"{TRAIN} --language-model mpnet",
    f"{TRAIN} --wandb shop",
    "evaluate --slates gap.csv --interactions log.csv",
    "retrain --events e --checkpoint nothing --out n --items no_id.csv",
    "demo --items items.csv --interactions unknown.csv --out d",
    "quantize nothing --out b --encoder-of nothing",
])  # fmt: skip
def test_tables_and_options_are_checked_before_torch_is_imported(
    fresh: Callable[[str], tuple[subprocess.CompletedProcess[str], float]], arguments: str
) -> None:
    """An answer to wrong tables, outputs, options or language models does not wait for torch."""
    done, _ = fresh(arguments)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.bench
def test_answers_come_fast(
    fresh: Callable[[str], tuple[subprocess.CompletedProcess[str], float]],
) -> None:
    """From a cold start half of the answers come within two seconds of processor time.

    On a machine with nothing else to do that is the time to wait, too.
    """
    waited = []
    computed = []
    for arguments, message in CASES:
        before = os.times()
        done, elapsed = fresh(arguments)
        after = os.times()
        check_answer(done.returncode, done.stderr, message)
        waited.append(elapsed)
        user = after.children_user - before.children_user
        computed.append(user + after.children_system - before.children_system)
    slowest = CASES[computed.index(max(computed))][0]
    print(f"\n{len(CASES)} answers: median {statistics.median(computed):.2f} s of processor time,")
    print(f"{statistics.median(waited):.2f} s to wait; most {max(computed):.1f} s: {slowest}")
    assert statistics.median(computed) <= 2
