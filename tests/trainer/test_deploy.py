"""The files in deploy/ agree with the program: options, ports, probes, limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sanderling.cli.app import make_app
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.collector.openapi import DOCUMENT
from sanderling_trainer.collector.server import KEEP_ALIVE_S
from sanderling_trainer.jobs.lease import LEASE_S

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).parents[2] / "deploy"


def manifests() -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "collector.yaml").read_text()))


def containers() -> list[dict]:
    pods = [
        manifest["spec"]["template"]["spec"]
        for manifest in manifests()
        if manifest["kind"] == "Deployment"
    ]
    jobs = [
        manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for manifest in manifests()
        if manifest["kind"] == "CronJob"
    ]
    return [pod["containers"][0] for pod in pods + jobs]


def is_valid(arguments: list[str]) -> bool:
    """Return whether the command line accepts these arguments; it does not run them."""
    return CliRunner().invoke(make_app(), [*arguments, "--help"]).exit_code == 0


@pytest.mark.parametrize("container", containers(), ids=lambda container: container["name"])
def test_the_manifest_starts_existing_commands(container):
    """Each container's command and options exist, and its probes use existing paths."""
    assert is_valid(container["args"])
    assert not is_valid([*container["args"], "--more"])
    probes = [
        value["httpGet"]["path"] for name, value in container.items() if name.endswith("Probe")
    ]
    assert set(probes) <= set(DOCUMENT["paths"])


def test_the_image_starts_a_collector():
    """The program accepts the Dockerfile's command, with the port that the image exposes."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    [command] = [
        yaml.safe_load(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")
    ]
    assert is_valid(command)
    assert f"EXPOSE {command[command.index('--port') + 1]}" in lines


def test_autoscaler_budget_and_service_select_the_deployment():
    """Autoscaler, budget and service select the same pods, and no job runs twice at a time."""
    by_kind = {manifest["kind"]: manifest for manifest in manifests()}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    target = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        by_kind["Deployment"]["metadata"]["name"],
    )
    assert by_kind["Service"]["spec"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    jobs = [manifest for manifest in manifests() if manifest["kind"] == "CronJob"]
    assert {job["spec"]["concurrencyPolicy"] for job in jobs} == {"Forbid"}


def test_the_ingress_exposes_the_public_paths_only():
    """It routes to the service, takes bodies as large as the collector does, and closes idle
    connections sooner.
    """
    by_kind = {manifest["kind"]: manifest for manifest in manifests()}
    [rule] = by_kind["Ingress"]["spec"]["rules"]
    paths = rule["http"]["paths"]
    assert [path["path"] for path in paths] == ["/v1", "/openapi.json"]
    assert {path["backend"]["service"]["name"] for path in paths} == {
        by_kind["Service"]["metadata"]["name"]
    }
    assert {path["backend"]["service"]["port"]["name"] for path in paths} == {
        by_kind["Service"]["spec"]["ports"][0]["name"]
    }
    size = by_kind["Ingress"]["metadata"]["annotations"][
        "nginx.ingress.kubernetes.io/proxy-body-size"
    ]
    assert size == f"{Limits.body_bytes // 2**20}m"
    assert 'upstream-keepalive-timeout: "60"' in (DEPLOY / "collector.yaml").read_text()
    assert KEEP_ALIVE_S > 60


def test_a_refused_rotation_is_retried_once():
    """A refused rotation, exit status 1, does not succeed later; a compaction is retried for longer
    than a lease.
    """
    jobs = {
        manifest["metadata"]["name"]: manifest["spec"]["jobTemplate"]
        for manifest in manifests()
        if manifest["kind"] == "CronJob"
    }
    limits = {name: job["spec"].get("backoffLimit", 6) for name, job in jobs.items()}
    assert limits["sanderling-rotate"] == 1
    assert (
        sum(min(10 * 2**attempt, 300) for attempt in range(limits["sanderling-compact"])) >= LEASE_S
    )
