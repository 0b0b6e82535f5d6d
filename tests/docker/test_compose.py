"""docker-compose.yml, by docker-compose itself where it is installed and as parsed YAML."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
Service = dict[str, Any]
SERVICES: dict[str, Service] = yaml.safe_load(FILE.read_text())["services"]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_http_service = pytest.mark.parametrize("name", ["service", "service-cpu"])


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)  # noqa: S603 -- our own command


def tools() -> list[str]:
    """Version 1, which Debian packages, and the plugin of Docker where there is one."""
    plugin = shutil.which("docker") and run("docker", "compose", "version").returncode == 0
    return ["docker-compose", "docker compose"] if plugin else ["docker-compose"]


@pytest.mark.parametrize("tool", tools())
@pytest.mark.parametrize("profile", [None, "cpu", "training"])
def test_docker_compose_accepts_the_file(tool: str, profile: str | None) -> None:
    command = tool.split()
    if shutil.which(command[0]) is None:
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    chosen = ["--profile", profile] if profile else []
    done = run(*command, "--file", FILE, *chosen, "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_gpu_service_starts_by_default() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["service"]


@pytest.mark.parametrize(("name", "profile"), [("service-cpu", "cpu"), ("training", "training")])
def test_each_other_service_has_a_profile(name: str, profile: str) -> None:
    assert SERVICES[name]["profiles"] == [profile]


@each_service
def test_a_container_can_change_nothing_and_gain_nothing(service: Service) -> None:
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 -- a path inside the container
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "user"}


@each_service
def test_every_dockerfile_exists(service: Service) -> None:
    assert service["build"]["context"] == "."
    assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_gpu_service_reserves_a_gpu_and_refuses_to_run_without() -> None:
    service = SERVICES["service"]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["build"]["args"] == {"RUNTIME": "gpu"}
    assert service["environment"]["UNET_SERVICE_DEVICE"] == "cuda"


def test_the_cpu_service_needs_no_gpu() -> None:
    service = SERVICES["service-cpu"]
    assert "deploy" not in service
    assert service["build"]["args"] == {"RUNTIME": "cpu"}
    assert service["environment"]["UNET_SERVICE_DEVICE"] == "cpu"


@each_http_service
def test_the_service_can_read_the_models_but_not_write_them(name: str) -> None:
    assert SERVICES[name]["volumes"] == ["./model/pretrained:/app/model/pretrained:ro"]


def test_training_cannot_write_its_data() -> None:
    assert "${DATA:-./data}:/data:ro" in SERVICES["training"]["volumes"]


@each_http_service
def test_the_host_listens_where_the_settings_would(name: str) -> None:
    host, port = (Settings.model_fields[field].default for field in ("host", "port"))
    published = f"${{UNET_SERVICE_HOST:-{host}}}:${{UNET_SERVICE_PORT:-{port}}}:8000"
    assert SERVICES[name]["ports"] == [published]


@each_http_service
def test_docker_waits_longer_than_the_service_needs_to_stop(name: str) -> None:
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().shutdown_grace_s


@each_http_service
def test_a_service_that_fell_over_starts_again(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_every_service_variable_is_a_setting() -> None:
    named = re.findall(r"UNET_SERVICE_(\w+)", FILE.read_text())
    assert {name.lower() for name in named} <= Settings.model_fields.keys()
