"""What stands in deploy/ agrees with the program: options, ports, probes."""

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
        found["spec"]["template"]["spec"] for found in manifests() if found["kind"] == "Deployment"
    ]
    jobs = [
        found["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for found in manifests()
        if found["kind"] == "CronJob"
    ]
    return [pod["containers"][0] for pod in pods + jobs]


def understood(arguments: list[str]) -> bool:
    """Say whether the command line takes these arguments; it does not run them."""
    return CliRunner().invoke(make_app(), [*arguments, "--help"]).exit_code == 0


@pytest.mark.parametrize("container", containers(), ids=lambda container: container["name"])
def test_the_manifest_starts_what_there_is(container):
    """Each container's command and options exist, and its probes ask paths that the collector has."""
    assert understood(container["args"])
    assert not understood([*container["args"], "--more"])
    probes = [
        value["httpGet"]["path"] for name, value in container.items() if name.endswith("Probe")
    ]
    assert set(probes) <= set(DOCUMENT["paths"])


def test_the_image_starts_a_collector():
    """The Dockerfile's command is one that the program takes, on the port that it opens."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    [command] = [
        yaml.safe_load(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")
    ]
    assert understood(command)
    assert f"EXPOSE {command[command.index('--port') + 1]}" in lines


def test_autoscaler_budget_and_service_name_the_deployment():
    """What scales, protects and reaches the pods means the same pods, and jobs never run twice at a time."""
    found = {manifest["kind"]: manifest for manifest in manifests()}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        found["Deployment"]["metadata"]["name"],
    )
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    jobs = [manifest for manifest in manifests() if manifest["kind"] == "CronJob"]
    assert {job["spec"]["concurrencyPolicy"] for job in jobs} == {"Forbid"}


def test_the_ingress_hands_on_the_public_paths_only():
    """It leads to the service, takes bodies as large as the collector does, and gives up idle connections sooner."""
    found = {manifest["kind"]: manifest for manifest in manifests()}
    [rule] = found["Ingress"]["spec"]["rules"]
    paths = rule["http"]["paths"]
    assert [path["path"] for path in paths] == ["/v1", "/openapi.json"]
    assert {path["backend"]["service"]["name"] for path in paths} == {
        found["Service"]["metadata"]["name"]
    }
    assert {path["backend"]["service"]["port"]["name"] for path in paths} == {
        found["Service"]["spec"]["ports"][0]["name"]
    }
    size = found["Ingress"]["metadata"]["annotations"][
        "nginx.ingress.kubernetes.io/proxy-body-size"
    ]
    assert size == f"{Limits.body_bytes // 2**20}m"
    assert 'upstream-keepalive-timeout: "60"' in (DEPLOY / "collector.yaml").read_text()
    assert KEEP_ALIVE_S > 60


def test_a_rotation_that_refuses_is_not_tried_all_night():
    """Exit status 1 may be a refusal, which reading the log again does not change; a compaction outlives a lease."""
    jobs = {
        found["metadata"]["name"]: found["spec"]["jobTemplate"]
        for found in manifests()
        if "Cron" in found["kind"]
    }
    limits = {name: job["spec"].get("backoffLimit", 6) for name, job in jobs.items()}
    assert limits["sanderling-rotate"] == 1
    assert (
        sum(min(10 * 2**attempt, 300) for attempt in range(limits["sanderling-compact"])) >= LEASE_S
    )
