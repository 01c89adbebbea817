"""The charts for Kubernetes, as Helm renders them: valid, hardened, and with no more network than they need."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = "1.37"
DIGEST = "sha256:" + "5" * 64
SITE: dict[str, Any] = {
    "image": {"repository": "registry.example.org/consilium-site", "digest": DIGEST},
    "site": "name: alder\nlink: link\n",
    "server": {"cidrs": ["198.51.100.7/32"]},
    "data": {"claim": "dicom"},
}
SERVER: dict[str, Any] = {
    "image": {"repository": "registry.example.org/consilium-server", "digest": DIGEST},
    "host": "federation.example.org",
    "researchers": {"from": ["10.0.0.0/8"]},
}
GIVEN = {"client": SITE, "server": SERVER}
EVERYTHING = {
    "client": SITE
    | {
        "proxySecret": "proxy",
        "archives": [{"cidr": "192.0.2.10/32", "port": 443}],
        "archiveSecret": "consilium-archive",
        "dns": True,
        "ingest": {"schedule": "0 4 * * *"},
        "state": {"storageClass": "fast"},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
    "server": SERVER
    | {
        "backup": {"claim": "backups"},
        "home": {"storageClass": "fast"},
        "hospitals": {"type": "NodePort", "annotations": {"a": "b"}},
        "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}],
    },
}
BOTH = pytest.mark.parametrize("side", ["client", "server"])


def folder(side: str) -> Path:
    return ROOT / side / "container" / "chart"


def rendered(side: str, values: dict[str, Any], **options: bool) -> list[dict[str, Any]]:
    """Every object of a chart, with these values."""
    with Chart.load(folder(side)) as chart:
        texts = chart.render(values, name="consilium", namespace="trials", **options)
    return [one for text in texts.values() for one in yaml.safe_load_all(text) if one]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, f"consilium-{name}"))


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The template of every pod, by the name of what makes it."""
    found = {}
    for one in objects:
        spec = one.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]
    return found


@BOTH
@pytest.mark.parametrize("values", [GIVEN, EVERYTHING], ids=["least", "everything"])
def test_what_is_rendered_is_valid(side: str, values: dict[str, dict[str, Any]]) -> None:
    objects = rendered(side, values[side])
    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    report = lint(folder(side), values[side], strict=True)
    assert [one["error"] for one in report["messages"] if one["severity"] > 1] == []
    wrong = copy.deepcopy(next(one for one in objects if one["kind"] == "StatefulSet"))
    wrong["spec"]["replicas"] = "one"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("side", "without", "told"),
    [
        ("client", "image", "image.repository"),
        ("client", "site", "site.yaml"),
        ("client", "server", "server.cidrs"),
        ("client", "data", "data.claim"),
        ("server", "image", "image.repository"),
        ("server", "host", "host: the name"),
        ("server", "researchers", "researchers.from"),
    ],
)
def test_what_must_be_said_is_asked_for(side: str, without: str, told: str) -> None:
    with pytest.raises(helm_python.HelmError, match=told):
        rendered(side, {name: value for name, value in GIVEN[side].items() if name != without})


@BOTH
@pytest.mark.parametrize("values", [GIVEN, EVERYTHING], ids=["least", "everything"])
def test_every_pod_is_restricted_limited_and_without_a_token(side: str, values: dict[str, dict[str, Any]]) -> None:
    """ "Restricted" of the Pod Security Standards, and beyond it a root file system that cannot be written to."""
    found = pods(rendered(side, values[side]))
    assert len(found) >= 2
    for template in found.values():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert all(
            volume.keys() & {"configMap", "secret", "emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"]
        )
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["image"].endswith(f"@{DIGEST}")
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() == {"cpu", "memory"}


def test_a_gpu_is_the_trainers_and_no_jobs() -> None:
    plain = pods(rendered("client", SITE))
    made = rendered("client", SITE | {"gpu": {"count": 1, "runtimeClass": "nvidia"}})
    for one in made:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    found = pods(made)
    trainer = found.pop("consilium-trainer")
    assert trainer["spec"].pop("runtimeClassName") == "nvidia"
    (container,) = trainer["spec"]["containers"]
    assert container["resources"]["limits"].pop("nvidia.com/gpu") == 1
    assert trainer == plain.pop("consilium-trainer"), "nothing else changes"
    assert found == plain


@BOTH
def test_without_a_digest_the_tag_counts(side: str) -> None:
    image = {"repository": "registry.example.org/x", "tag": "0.2.0"}
    for template in pods(rendered(side, GIVEN[side] | {"image": image})).values():
        assert all(one["image"] == "registry.example.org/x:0.2.0" for one in template["spec"]["containers"])


@BOTH
def test_what_runs_for_long_says_when_it_is_ready(side: str) -> None:
    for name, template in pods(rendered(side, GIVEN[side])).items():
        for container in template["spec"]["containers"]:
            long = name.endswith(("-gateway", "-trainer", "-server"))
            assert ({"startupProbe", "readinessProbe"} <= container.keys()) is long, name


@BOTH
def test_init_is_a_job_of_the_installation_only(side: str) -> None:
    """A ledger or an authority that was lost is restored, and not made anew by an upgrade."""
    jobs = [one for one in rendered(side, GIVEN[side]) if one["kind"] == "Job"]
    assert [one["spec"]["template"]["spec"]["containers"][0]["args"][0] for one in jobs] == ["init"]
    upgraded = rendered(side, GIVEN[side], is_install=False, is_upgrade=True)
    assert [one for one in upgraded if one["kind"] == "Job"] == []
    claims = [one for one in upgraded if one["kind"] == "PersistentVolumeClaim"]
    assert [one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in claims] == ["keep"]


@BOTH
def test_jobs_run_on_the_node_that_has_the_claim(side: str) -> None:
    """Elsewhere they would wait for it for ever."""
    part = {"client": "trainer", "server": "server"}[side]
    for name, template in pods(rendered(side, EVERYTHING[side])).items():
        if name.endswith(("-init", "-ingest", "-backup")):
            (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["topologyKey"] == "kubernetes.io/hostname"
            assert term["labelSelector"]["matchLabels"]["part"] == part


def test_images_are_read_in_when_somebody_wants_it() -> None:
    asked = named(rendered("client", SITE), "CronJob", "ingest")["spec"]
    nightly = named(rendered("client", EVERYTHING["client"]), "CronJob", "ingest")["spec"]
    assert asked["suspend"] is True
    assert (nightly["suspend"], nightly["schedule"]) == (False, "0 4 * * *")
    assert asked["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["ingest"]


def test_the_gateway_has_no_data_and_the_data_is_read_only() -> None:
    found = pods(rendered("client", SITE))
    gateway = found.pop("consilium-gateway")["spec"]
    assert not [volume for volume in gateway["volumes"] if "persistentVolumeClaim" in volume]
    assert found.keys() == {"consilium-trainer", "consilium-init", "consilium-ingest"}
    for template in found.values():
        assert template["metadata"]["labels"]["data"] == "yes", "the network policy goes by it"
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert [item["key"] for item in volumes["given"]["secret"]["items"]] == ["trainer.secret", "deputy.key"]
        for container in pod["containers"]:
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            assert mounts["data"]["readOnly"] is True
            assert mounts["site"]["readOnly"] is True


def test_what_has_the_data_reaches_the_gateway_and_nothing_else() -> None:
    objects = rendered("client", SITE)
    policy = named(objects, "NetworkPolicy", "data")["spec"]
    assert policy["podSelector"]["matchLabels"]["data"] == "yes"
    assert policy["ingress"] == []
    (rule,) = policy["egress"]
    assert [peer["podSelector"]["matchLabels"]["part"] for peer in rule["to"]] == ["gateway"]
    assert rule["ports"] == [{"port": 9094}]
    trainer = pods(objects)["consilium-trainer"]["spec"]
    assert trainer["dnsPolicy"] == "None", "DNS queries would be a way out"
    environment = {one["name"]: one["value"] for one in trainer["containers"][0]["env"]}
    assert environment["CONSILIUM_GATEWAY"] == "$(CONSILIUM_GATEWAY_SERVICE_HOST):9094"
    gateway = named(objects, "NetworkPolicy", "gateway")["spec"]
    assert [rule["ports"][0]["port"] for rule in gateway["egress"]] == [8443, 53]
    services = [one for one in objects if one["kind"] == "Service"]
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in services), "nothing is published"


def test_an_archive_and_its_name_are_reached_if_somebody_says_so() -> None:
    objects = rendered("client", EVERYTHING["client"])
    policy = named(objects, "NetworkPolicy", "data")["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[9094], [443], [53, 53]]
    assert "dnsPolicy" not in pods(objects)["consilium-trainer"]["spec"]


def test_an_archive_needs_no_name_service_and_its_files_come_from_a_secret() -> None:
    archive = {"cidr": "192.0.2.10/32", "port": 2762, "name": "pacs.hospital.example"}
    objects = rendered("client", SITE | {"archives": [archive], "archiveSecret": "consilium-archive"})
    policy = named(objects, "NetworkPolicy", "data")["spec"]
    gateway, only = policy["egress"]
    assert gateway["ports"] == [{"port": 9094}]
    assert only == {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 2762}]}
    assert policy["ingress"] == []
    found = pods(objects)
    for name in ("consilium-trainer", "consilium-ingest"):
        pod = found[name]["spec"]
        assert pod["hostAliases"] == [{"ip": "192.0.2.10", "hostnames": ["pacs.hospital.example"]}]
        assert pod["dnsPolicy"] == "None"
        assert {"name": "archive", "secret": {"secretName": "consilium-archive"}} in pod["volumes"]
        assert "archive" in [container["name"] for container in pod["initContainers"]]
    assert "archive" not in str(found["consilium-gateway"])


def test_the_server_is_reached_where_it_should_be_and_reaches_nothing() -> None:
    objects = rendered("server", SERVER)
    policy = named(objects, "NetworkPolicy", "server")["spec"]
    rules = {rule["ports"][0]["port"]: [peer["ipBlock"]["cidr"] for peer in rule["from"]] for rule in policy["ingress"]}
    assert rules == {8443: ["0.0.0.0/0"], 8444: ["10.0.0.0/8"]}
    assert policy["egress"] == []
    kinds = {name: named(objects, "Service", name)["spec"]["type"] for name in ("hospitals", "researchers")}
    assert kinds == {"hospitals": "LoadBalancer", "researchers": "ClusterIP"}
    init = pods(objects)["consilium-init"]["spec"]["containers"][0]["args"]
    assert "--host=federation.example.org" in init


def test_the_server_is_backed_up_if_there_is_a_place_for_it() -> None:
    assert "consilium-backup" not in pods(rendered("server", SERVER))
    pod = pods(rendered("server", EVERYTHING["server"]))["consilium-backup"]["spec"]
    assert {"name": "backup", "persistentVolumeClaim": {"claimName": "backups"}} in pod["volumes"]
    assert pod["containers"][0]["command"] == [
        "consilium-server",
        "backup",
        "/backup",
        "--home",
        "/server",
        "--keep",
        "7",
    ]
