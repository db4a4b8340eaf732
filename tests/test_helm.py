"""The Helm chart: linted, rendered with several values, each manifest held to Kubernetes' schemas. On no cluster."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

if not (sys.platform == "linux" and sys.maxsize > 2**32):
    pytest.skip("Helm's library is made for 64-bit Linux", allow_module_level=True)
helm = pytest.importorskip("helm_python", reason="Helm's library is made for x86_64 alone")

import kubernetes_validate  # noqa: E402

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy/helm/causeway"
VALUES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}
KUBERNETES = ("1.27", kubernetes_validate.latest_version())


def rendered(values: dict[str, Any], name: str = "causeway") -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace="games", is_install=True)
    return [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def by_name(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in documents if "template" in d.get("spec", {})}


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", VALUES)
def test_chart_is_linted_clean(name: str) -> None:
    report = helm.lint(CHART, VALUES[name], strict=True, namespace="games")
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert not report["errors"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_manifests_follow_kubernetes_schemas(name: str, version: str) -> None:
    documents = rendered(VALUES[name])
    assert len(documents) >= 6
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_would_see_a_wrong_key() -> None:
    document = by_name(rendered(VALUES["minimal"]), "Deployment")["causeway-web"]
    document["spec"]["template"]["spec"]["containers"][0]["reedinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"manager": {"hosts": ["*"]}},
        {"manager": {"hosts": ["a"], "trustedProxies": ["0.0.0.0/0"]}},
        {"manager": {"hosts": ["a"], "env": {"SECRET_KEY": "x"}}},
        {"manager": {"hosts": ["a"]}, "beat": {"replicas": 2}},
        {"manager": {"hosts": ["a"]}, "nodes": {"locations": [{"name": "frankfurt"}]}},
        {"manager": {"hosts": ["a"]}, "web": {"ingress": {"enabled": True}}},
        {
            "manager": {"hosts": ["a"]},
            "nodes": {"locations": [{"name": "x", "joinSecret": "x", "websocket": {"port": 443}}]},
        },
    ],
    ids=[
        "no hosts",
        "any host",
        "any proxy",
        "a secret in the clear",
        "two beats",
        "no join key",
        "ingress of no host",
        "a WebSocket port without a certificate",
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmValuesError):
        chart.validate_schema(chart.merge_values(values))


def test_every_container_is_confined() -> None:
    for name, pod in pods(rendered(VALUES["full"])).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"] + pod.get("initContainers", []):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"]["drop"] == ["ALL"], name
            added = context["capabilities"].get("add", [])
            of_nodes = {"frankfurt": ["NET_BIND_SERVICE"], "tokyo": ["BPF", "NET_ADMIN"]}
            wanted = {"own-state": ["CHOWN", "FOWNER"], "node": of_nodes.get(name.rpartition("-")[2], [])}
            assert added == wanted.get(container["name"], []), name


def test_secrets_come_as_files_and_the_names_of_the_service_are_hosts() -> None:
    documents = rendered(VALUES["full"])
    assert not by_name(documents, "Secret")
    manager = {name: pod for name, pod in pods(documents).items() if "-node-" not in name}
    assert set(manager) == {f"causeway-{name}" for name in ("web", "worker", "beat", "matchmaker", "migrate")}
    for pod in manager.values():
        variables = environment(pod)
        assert {"SECRET_KEY_FILE", "DATABASE_URL_FILE", "BROKER_URL_FILE"} <= variables.keys()
        hosts = str(variables["ALLOWED_HOSTS"]).split(",")
        assert {"relays.example.com", "203.0.113.5", "causeway-web", "causeway-web.games.svc"} <= set(hosts)
        assert variables["CAUSEWAY_HTTPS"] == "on" and variables["CAUSEWAY_GRANT_TIMEOUT"] == "0.5"


def test_nodes_are_a_daemonset_on_the_hosts_network_for_each_location() -> None:
    sets = by_name(rendered(VALUES["full"]), "DaemonSet")
    assert set(sets) == {"causeway-node-frankfurt", "causeway-node-tokyo"}
    frankfurt, tokyo = (sets[f"causeway-node-{name}"]["spec"]["template"]["spec"] for name in ("frankfurt", "tokyo"))
    assert frankfurt["hostNetwork"] and tokyo["hostNetwork"]
    assert frankfurt["nodeSelector"] == {"causeway/location": "frankfurt"}
    assert tokyo["nodeSelector"] == {"topology.kubernetes.io/region": "ap-northeast-1"}
    assert tokyo["terminationGracePeriodSeconds"] > 600
    assert (environment(frankfurt)["CAUSEWAY_NODE_PACKET_PATH"], environment(tokyo)["CAUSEWAY_NODE_PACKET_PATH"]) == (
        "userspace",
        "xdp",
    )


def test_nodes_serve_websockets_with_the_certificate_of_a_secret() -> None:
    documents = rendered(VALUES["full"])
    frankfurt = pods(documents)["causeway-node-frankfurt"]
    variables = environment(frankfurt)
    assert variables["CAUSEWAY_NODE_WEBSOCKET_PORT"] == "443"
    (mount,) = (each for each in frankfurt["containers"][0]["volumeMounts"] if each["name"] == "tls")
    assert "subPath" not in mount, "such a file would not change with its Secret"
    for name in ("CERTIFICATE", "KEY"):
        assert variables[f"CAUSEWAY_NODE_TLS_{name}"].startswith(mount["mountPath"] + "/tls.")
    (volume,) = (each for each in frankfurt["volumes"] if each["name"] == "tls")
    assert volume["secret"]["secretName"] == "fra-tls"
    hosts = by_name(documents, "ConfigMap")["causeway-node-frankfurt"]["data"]
    assert hosts["machine-1.example.com.host"] == "fra-1.example.com"
    assert frankfurt["securityContext"]["runAsUser"] == 0, "capabilities are root's"
    minimal = [pod for name, pod in pods(rendered(VALUES["small"])).items() if "-node-" in name]
    assert all("CAUSEWAY_NODE_WEBSOCKET_PORT" not in environment(pod) for pod in minimal)


def test_there_is_exactly_one_beat_and_it_never_overlaps_itself() -> None:
    beat = by_name(rendered(VALUES["full"]), "Deployment")["causeway-beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def test_selectors_name_their_own_pods() -> None:
    documents = rendered(VALUES["full"], name="studio")
    labels = {
        name: d["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "DaemonSet")
        for name, d in by_name(documents, kind).items()
    }
    for name, document in (by_name(documents, "Deployment") | by_name(documents, "DaemonSet")).items():
        selector = document["spec"]["selector"]["matchLabels"].items()
        assert [other for other, has in labels.items() if selector <= has.items()] == [name]
    service = by_name(documents, "Service")["studio-causeway-web"]["spec"]["selector"].items()
    assert [name for name, has in labels.items() if service <= has.items()] == ["studio-causeway-web"]


def test_settings_in_the_chart_are_settings_of_the_code() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    for pod in pods(rendered(VALUES["full"])).values():
        for name in environment(pod):
            if name != "MACHINE":
                assert f"`{re.sub('_FILE$', '', name)}`" in page, name
