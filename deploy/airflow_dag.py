"""The nightly jobs as an Airflow DAG; workers need the lab and the folder of the shop."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow import DAG
from airflow.operators.bash import BashOperator

SHOP = "/srv/shop"
SIGNED = "--repository repository --keys keys"

with DAG(
    "sanderling_nightly",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # a night learns from everything that is new: missed ones are not made up for
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=35),  # longer than the lease of a job that was killed
        "execution_timeout": timedelta(hours=6),
        "cwd": SHOP,
        "append_env": True,
        "env": {"SHOP": SHOP},
    },
) as dag:
    compact = BashOperator(task_id="compact", bash_command="sanderling compact --store events")
    rotate = BashOperator(
        task_id="rotate", bash_command="sanderling installs rotate --store events", retries=1
    )
    monitor = BashOperator(task_id="monitor", bash_command="sanderling monitor --events events")
    # The space at the end keeps Airflow from reading a file of this name as a template.
    nightly = BashOperator(task_id="nightly", bash_command="nightly.sh ")
    refresh = BashOperator(
        task_id="refresh",
        bash_command=f"sanderling release refresh {SIGNED} --if-within 10",
        trigger_rule="all_done",  # also when the night fails
    )
    compact >> [rotate, monitor, nightly]
    nightly >> refresh
