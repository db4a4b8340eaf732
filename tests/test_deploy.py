"""What is shipped to run Causeway: checked by schema and by names, since no container engine is at hand."""

import contextlib
import datetime
import gzip
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relaymgr.management.commands import up
from tests.flows.stack import free_ports
from tests.security.routes import SAMPLES
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"


def needs(program: str) -> pytest.MarkDecorator:
    """Skips where the program is not installed; in CI it is."""
    missing = shutil.which(program) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


COMPOSE_FILES = (COMPOSE, ROOT / "deploy/compose.xdp.yml")
DEPLOY = ROOT / "deploy"


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)


def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


# docker-compose.yml and the image


def test_compose_files_follow_the_schema() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE_FILES)
    assert done.returncode == 0, done.stdout


def test_yaml_is_in_good_style() -> None:
    done = tool("yamllint", "--strict", "docker-compose.yml", "deploy", ".yamllint")
    assert done.returncode == 0, done.stdout


def test_dockerfile_is_in_good_style() -> None:
    done = tool("hadolint", DEPLOY / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_compose_file_holds_no_secret() -> None:
    """Those that do not come as files are named for the file that holds them."""
    for name, service in services().items():
        for variable in service.get("environment", {}):
            if re.search("SECRET|PASSWORD|KEY|DATABASE_URL", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"


def test_every_secret_of_the_compose_file_is_made(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(DEPLOY / "new_secrets.sh", tmp_path / "deploy")
    subprocess.run([tmp_path / "deploy/new_secrets.sh"], check=True)
    made = {file.name: file.read_text().strip() for file in (tmp_path / "secrets").iterdir() if file.is_file()}
    assert made.keys() == yaml.safe_load(COMPOSE.read_text())["secrets"].keys()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert len(set(made.values()) - {""}) == 7 and len(made["secret_key"]) >= 64
    assert made["postgres_password"] in made["database_url"]
    subprocess.run([tmp_path / "deploy/new_secrets.sh"], check=True)
    assert (tmp_path / "secrets/secret_key").read_text().strip() == made["secret_key"], "none is made anew"


def test_every_service_is_confined_watched_and_bounded() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["pids_limit"], name
        assert service["logging"]["options"]["max-size"], name
        # One ends by itself, the matchmaker serves nothing that could be asked.
        assert ("healthcheck" in service) == (name not in ("migrate", "matchmaker")), name


def test_every_variable_of_the_compose_file_is_in_the_example_or_has_a_default() -> None:
    example = set(re.findall(r"^(?:# )?(\w+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text()):
        assert name in example or rest.startswith(":-"), name


def test_settings_in_the_deployment_files_are_settings_of_the_code() -> None:
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    known |= {"CAUSEWAY_DOMAIN", "CAUSEWAY_TLS", "CAUSEWAY_WEB", "CAUSEWAY_WEB_HOST", "CAUSEWAY_WEB_PORT"}
    known |= {"CAUSEWAY_NODE_1", "CAUSEWAY_NODE_2"}  # of the Caddyfile
    known |= {"CAUSEWAY_LISTEN", "CAUSEWAY_CERTIFICATES"}
    for file in (*COMPOSE_FILES, DEPLOY / "example.env", DEPLOY / "Dockerfile", *(DEPLOY / "systemd").rglob("*.*")):
        if file.is_file():
            used = {name.removesuffix("_FILE") for name in re.findall(r"CAUSEWAY_\w+", file.read_text())}
            assert used <= known, file.name


def test_only_the_managers_setting_says_which_proxies_are_believed() -> None:
    """uvicorn believes X-Forwarded-For from loopback on its own account."""
    assert "--no-proxy-headers" in services()["web"]["command"]
    assert "--no-proxy-headers" in (DEPLOY / "systemd/causeway-web.service").read_text()
    assert "--no-proxy-headers" in up._manager("127.0.0.1", 8000)[0].argv


def test_connections_have_deadlines_however_web_is_started() -> None:
    protocol = "web.http.protocol:BoundedProtocol"
    assert protocol in services()["web"]["command"]
    assert protocol in (DEPLOY / "systemd/causeway-web.service").read_text()
    assert protocol in (DEPLOY / "helm/causeway/templates/web.yaml").read_text()
    assert protocol in up._manager("127.0.0.1", 8000)[0].argv


def test_the_address_of_the_proxy_is_the_one_that_is_believed() -> None:
    address = services()["proxy"]["networks"]["default"]["ipv4_address"]
    assert f":-{address}/32}}" in services()["web"]["environment"]["CAUSEWAY_TRUSTED_PROXIES"]


@needs("promtool")
def test_prometheus_understands_what_it_is_told_by_the_compose_file() -> None:
    argv = ["promtool", "check", "config", "--syntax-only", str(DEPLOY / "prometheus/compose.yml")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_looks_where_the_compose_file_serves() -> None:
    told = (DEPLOY / "prometheus/compose.yml").read_text()
    for name in ("worker", "beat", "matchmaker"):
        port = services()[name]["environment"][f"CAUSEWAY_{name.upper()}_METRICS_PORT"]
        assert f"names: [{name}], type: A, port: {port}" in told
    for name in ("node-1", "node-2"):
        environment = services()[name]["environment"]
        host, port = environment["CAUSEWAY_NODE_CONTROL_HOST"], environment["CAUSEWAY_NODE_CONTROL_PORT"]
        assert f"targets: [{host}:{port}]" in told


# systemd


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with this tree in the place where they are installed."""
    folder = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", folder)
    for unit in folder.glob("*.service"):
        text = unit.read_text().replace("/opt/causeway/.venv/bin", str(Path(sys.executable).parent))
        unit.write_text(text.replace("/opt/causeway", str(ROOT)))
    return sorted(folder.glob("*.*[!d]"))


@needs("systemd-analyze")
def test_units_are_what_systemd_understands(units: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *units], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@needs("systemd-analyze")
@pytest.mark.parametrize("kind", ["node", "web", "worker", "beat", "matchmaker"])
def test_units_are_confined(kind: str) -> None:
    """In systemd's own measure, from 0, safe, to 10; what is below 2.0 it calls OK."""
    unit = DEPLOY / f"systemd/causeway-{kind}.service"
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=19", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_units_differ_in_nothing_but_their_process() -> None:
    """What confines one confines all."""
    confined = {
        tuple(
            re.findall(r"^((?:Protect|Private|Restrict|System|Cap|Ambient|NoNew|Lock|Memory.*Exec)\w*=.*)$", text, re.M)
        )
        for text in (unit.read_text() for unit in (DEPLOY / "systemd").glob("*.service"))
    }
    assert len(confined) == 1


# The proxy


@needs("caddy")
@pytest.mark.parametrize("tls", ["internal", "ops@example.com", "/certificates/tls.crt /certificates/tls.key"])
def test_proxy_understands_its_file_with_each_kind_of_certificate(tls: str) -> None:
    adapted = adapt({"CAUSEWAY_DOMAIN": "relays.example.com", "CAUSEWAY_TLS": tls, "CAUSEWAY_WEB": "web:8000"})
    assert '"dial":"web:8000"' in adapted and "relays.example.com" in adapted


@needs("caddy")
def test_proxy_leads_websockets_to_the_node_of_the_port() -> None:
    """The ports in the file are those of the compose file's nodes."""
    adapted = adapt({"CAUSEWAY_DOMAIN": "a.example.com", "CAUSEWAY_TLS": "internal", "CAUSEWAY_WEB": "web:8000"})
    (server,) = json.loads(adapted)["apps"]["http"]["servers"].values()
    routes = server["routes"][0]["handle"][0]["routes"]
    found = {
        matcher["path_regexp"]["pattern"]: json.dumps(route["handle"])
        for route in routes
        for matcher in route.get("match", ())
        if "path_regexp" in matcher
    }
    for name, control in (("node-1", "8911"), ("node-2", "8912")):
        environment = services()[name]["environment"]
        path = f"/relay/{int(environment['CAUSEWAY_NODE_BASE_PORT']) + 1}"
        (handled,) = (handle for pattern, handle in found.items() if re.search(pattern, path))
        assert f'"127.0.0.1:{control}"' in handled
        assert f":+{control}" in environment["CAUSEWAY_NODE_WEBSOCKET_PORT"], "off without a URL"


def adapt(environment: dict[str, str]) -> str:
    argv = ["caddy", "adapt", "--config", str(DEPLOY / "caddy/Caddyfile"), "--adapter", "caddyfile"]
    done = subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.flow
@needs("caddy")
def test_players_come_by_https_and_cannot_choose_their_address(tmp_path: Path) -> None:
    """The real proxy with a certificate of ours before a real manager."""
    web_port, relay_port = free_ports()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        https_port = probe.getsockname()[1]
    certificate, key = self_signed(tmp_path)
    config = json.loads(
        adapt(
            {
                "CAUSEWAY_DOMAIN": f"https://localhost:{https_port}",
                "CAUSEWAY_TLS": f"{certificate} {key}",
                "CAUSEWAY_WEB": f"127.0.0.1:{web_port}",
            }
        )
    )
    config["admin"] = {"disabled": True}
    config["apps"]["http"]["servers"]["srv0"]["automatic_https"] = {"disable_redirects": True}
    (tmp_path / "caddy.json").write_text(json.dumps(config))
    environment = os.environ | {
        "HOME": str(tmp_path),
        "CAUSEWAY_STATE_DIR": str(tmp_path / "state"),
        "CAUSEWAY_HTTPS": "on",
        "CAUSEWAY_TRUSTED_PROXIES": "127.0.0.1/32",
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    ports = ["--port", str(web_port), "--relay-port", str(relay_port), "--nodes", "0"]
    with (
        running([*manage, "up", *ports], environment, tmp_path / "up.log"),
        running(["caddy", "run", "--config", str(tmp_path / "caddy.json")], environment, tmp_path / "caddy.log"),
        httpx.Client(
            base_url=f"https://localhost:{https_port}", verify=ssl.create_default_context(cafile=certificate)
        ) as client,
    ):
        wait_until(lambda: answers(client), f"the manager behind its proxy; see {tmp_path}", 90)
        login = client.get("/admin/login/", headers={"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "http"})
        assert login.status_code == 200
        assert "Secure" in login.headers["Set-Cookie"]
        made = subprocess.run([*manage, "api_key", "studio", "--create-tenant"], env=environment, capture_output=True)
        key = {"Authorization": f"token {made.stdout.decode().strip()}"}
        seen = client.get("/v1/ip", headers=key | {"X-Forwarded-For": "198.51.100.9"})
        assert seen.json() == {"public_ip": "127.0.0.1"}
        many = client.post(
            "/v1/relays/sessions", content=b"x" * 2_000_000, headers=key | {"Content-Type": "application/json"}
        )
        assert many.status_code == 413
        bodies_are_read_however_they_are_framed(client, f"http://127.0.0.1:{web_port}", key, certificate)


def bodies_are_read_however_they_are_framed(client: httpx.Client, web: str, key: dict[str, str], ca: str) -> None:
    """In chunks and by HTTP/2 no header says how long a body is: .NET's PostAsJsonAsync and proxies send such."""
    body = b'{"addresses": ["192.0.2.1"]}'
    headers = {**key, "Content-Type": "application/json"}
    for base in (web, str(client.base_url)):
        chunked = client.post(f"{base}/v1/ips/lookup", content=iter([body[:9], body[9:]]), headers=headers)
        assert chunked.request.headers["Transfer-Encoding"] == "chunked"
        assert chunked.json()["addresses"][0]["ip_address"] == "192.0.2.1"
    packed = client.post(
        "/v1/ips/lookup", content=iter([gzip.compress(body)]), headers=headers | {"Content-Encoding": "gzip"}
    )
    assert packed.json()["addresses"][0]["ip_address"] == "192.0.2.1"
    argv = ["curl", "-sS", "--http2", "--cacert", ca, "-X", "POST", "-T", "-", "-w", " %{http_version}"]
    argv += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    by_http2 = subprocess.run([*argv, f"{client.base_url}/v1/ips/lookup"], input=body, capture_output=True, check=True)
    assert by_http2.stdout.endswith(b" 2") and b'"ip_address":"192.0.2.1"' in by_http2.stdout
    for path, operations in client.get("/v1/openapi.json").json()["paths"].items():
        for method in (method for method, operation in operations.items() if "requestBody" in operation):
            where = re.sub(r"{(\w+)}", lambda name: SAMPLES[name[1]], path)
            answer = client.request(method, f"{web}{where}", content=iter([b"["]), headers=headers)
            is_for_nodes = path.startswith("/v1/nodes")  # whose keys we do not have
            assert (answer.status_code in (401, 403)) if is_for_nodes else answer.json()["code"] == "malformed", where


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/monitor").status_code != 502
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def running(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def self_signed(folder: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return str(folder / "tls.crt"), str(folder / "tls.key")


# The rest


def test_dockerfile_copies_what_there_is() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize(
    "target", ["demo", "test", "up", "stop", "style", "types", "tests", "lock", "settings-page", "bench-matchmaking"]
)
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "demo"],
        cwd=ROOT,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stdout
