"""The Helm chart: linted, rendered in several forms, and checked against the schemas of Kubernetes."""

import json
import os
import shutil
import subprocess

import pytest
import yaml

from kubernetes_schemas import KubernetesSchemas
from roots import KEPT, build
from support.fixtures import need
from support.postgres import REPOSITORY

TOOLS = os.path.join(KEPT, "tools")
KUBERNETES = ["1.25", "1.31", "1.35"]

EVERYTHING = {
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "replicaCount": 3,
    "init": {"enabled": True, "existingSecret": "admin"},
    "config": '[global]\nha_group = "x"\n\n[[pipeline]]\nname = "a"\nsource = { type = "stdin" }\n',
    "secrets": [{"name": "nats", "existingSecret": "nats-credentials"}],
    "adminToken": {"existingSecret": "token"},
    "relay": {"extraArgs": ["--discovery-interval", "2s"], "haMode": "leader"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "k", "operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
}
# What each of these does wrong.
WRONG = [
    ({"replicas": 3}, "replicas"),
    ({"replicaCount": 0}, "replicaCount"),
    ({"relay": {"haMode": "both"}}, "haMode"),
    ({"postgres": {"existingSecret": ""}}, "existingSecret"),
    ({"init": {"enabled": True}}, "existingSecret"),
    ({"secrets": [{"name": "Not Legal", "existingSecret": "a"}]}, "secrets"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"service": {"port": 70000}}, "port"),
]


@pytest.fixture(scope="session")
def chart(tmp_path_factory):
    """The chart as it is packed."""
    need(shutil.which("pip"), "pip (python3-pip)")
    archive = build("chart").splitlines()[-1]
    folder = tmp_path_factory.mktemp("chart")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return folder / "pgtrickle-relay"


@pytest.fixture(scope="session")
def schemas():
    os.makedirs(TOOLS, exist_ok=True)
    return KubernetesSchemas(TOOLS)


def helm(command, chart, values, tmp_path):
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    return subprocess.run([os.path.join(REPOSITORY, "packaging/chart/helm.py"), command, chart, file],
                          capture_output=True, text=True, env=os.environ | {"KEPT": KEPT})


def render(chart, values, tmp_path):
    """(manifests, what went wrong) of `helm template`."""
    ran = helm("template", chart, values, tmp_path)
    return [one for one in yaml.safe_load_all(ran.stdout) if one], ran.stderr


def of_kind(manifests, kind):
    return [one for one in manifests if one["kind"] == kind]


def test_helm_lints_it_as_it_is_and_with_everything(chart, tmp_path):
    for given in ({}, EVERYTHING):
        ran = helm("lint", chart, given, tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    # A warning would fail.
    broken = tmp_path / "broken"
    shutil.copytree(chart, broken)
    (broken / "templates" / "broken.yaml").write_text("apiVersion: v1\nkind: {{ .Values.none.such }}\n")
    assert helm("lint", broken, {}, tmp_path).returncode == 1


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_manifest(chart, schemas, tmp_path, version):
    for given in ({}, EVERYTHING):
        manifests, problem = render(chart, given, tmp_path)
        assert manifests, problem
        # What the Prometheus operator adds has no schema here.
        known = [one for one in manifests if not one["apiVersion"].startswith("monitoring.coreos.com")]
        for manifest in known:
            assert schemas.errors(manifest, version) == [], manifest["kind"]
    # The schemas refuse what a server would: here a misspelt field.
    deployment = of_kind(known, "Deployment")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    assert any("readynessProbe" in error for error in schemas.errors(deployment, version))


def test_by_default_two_relays_run_with_no_rights(chart, tmp_path):
    manifests, problem = render(chart, {}, tmp_path)
    assert {one["kind"] for one in manifests} == \
        {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"}, problem
    deployment = of_kind(manifests, "Deployment")[0]
    pod = deployment["spec"]["template"]["spec"]
    container, = pod["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert of_kind(manifests, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 1
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["securityContext"] == {"allowPrivilegeEscalation": False,
                                            "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    # The drain of 30 s has to fit.
    assert pod["terminationGracePeriodSeconds"] == 45
    # No secret is in a variable: only names of files are.
    assert all("valueFrom" not in variable for variable in container["env"])


def test_secrets_are_files_and_the_rules_are_those_that_are_tested(chart, tmp_path):
    manifests, problem = render(chart, EVERYTHING, tmp_path)
    assert manifests, problem
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    container, = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["secret-nats"] == "/etc/pgtrickle-relay/secrets/nats"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["secret-nats"]["secret"]["secretName"] == "nats-credentials"
    assert set(mounts) == set(volumes)
    assert container["image"].endswith("@sha256:" + "0" * 64)
    assert of_kind(manifests, "ConfigMap")[0]["data"]["relay.toml"] == EVERYTHING["config"]
    monitor = of_kind(manifests, "ServiceMonitor")[0]["spec"]
    service = of_kind(manifests, "Service")[0]
    labels = service["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    with open(os.path.join(REPOSITORY, "packaging", "monitoring", "alerts.yml")) as rules:
        assert of_kind(manifests, "PrometheusRule")[0]["spec"] == yaml.safe_load(rules)


@pytest.mark.parametrize("values, named", WRONG, ids=[named for _, named in WRONG])
def test_a_mistake_in_the_values_is_refused_and_named(chart, tmp_path, values, named):
    manifests, problem = render(chart, values, tmp_path)
    assert manifests == [] and named in problem


def test_a_new_configuration_replaces_the_pods(chart, tmp_path):
    def checksum(config):
        manifests, _ = render(chart, {"config": config}, tmp_path)
        return of_kind(manifests, "Deployment")[0]["spec"]["template"]["metadata"]["annotations"]

    assert checksum("[global]\n") != checksum('[global]\nha_group = "x"\n')
