"""What the local stack decides before anything is started."""

import base64
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from api.places import READS_MAX
from infra.local.credentials import load_credentials
from infra.local.ports import free_block, is_free, remembered_block
from infra.local.stack import OLD_VERSION, Stack, plan_stack
from shared.errors import ModelUnknown, SettingsInvalid
from shared.settings import Settings


def plan(folder: Path, environ: dict[str, str] | None = None, **options: object) -> Stack:
    return plan_stack(Settings(**options), {"PATH": os.environ["PATH"]} | (environ or {}), folder=folder, port=0)  # type: ignore[arg-type]


def env_of(stack: Stack) -> dict[str, str]:
    return dict(stack.programs[-1].env)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GRANULE_") or name in ("REDIS_URL", "S3_ENDPOINT_URL", "PORT", "DATA_DIR"):
            monkeypatch.delenv(name)


def test_servers_come_before_those_who_need_them(tmp_path: Path) -> None:
    assert [program.name for program in plan(tmp_path).programs] == ["redis", "s3", "render", "courier", "api"]


def test_a_server_that_is_named_must_answer(tmp_path: Path) -> None:
    port = free_block(1)[0]
    with pytest.raises(SettingsInvalid, match="REDIS_URL does not answer"):
        plan(tmp_path, redis_url=f"redis://127.0.0.1:{port}/0")
    with pytest.raises(SettingsInvalid, match="REDIS_URL is not an address"):
        plan(tmp_path, redis_url="localhost:6379")
    with pytest.raises(SettingsInvalid, match="bucket granule at S3_ENDPOINT_URL cannot be used"):
        plan(tmp_path, s3_endpoint_url=f"http://127.0.0.1:{port}")


def test_a_model_without_manifest_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelUnknown, match="acme/unknown"):
        plan(tmp_path, model="acme/unknown")


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"port {port} on 127.0.0.1 is taken") as caught:
            plan_stack(Settings(), os.environ, folder=tmp_path, port=port)
    assert caught.value.field == "PORT"


def test_keys_are_made_once_and_are_for_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    first = load_credentials(file)
    assert load_credentials(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # The official Python client splits the secret at its underscore and decodes the rest with the standard alphabet.
    mark, key = first.webhook_secret.split("_")
    assert mark == "whsec" and len(base64.b64decode(key, validate=True)) == 32


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text("{}")
    with pytest.raises(SettingsInvalid, match=r"credentials\.json is damaged"):
        load_credentials(file)


def test_no_key_stands_on_a_command_line(tmp_path: Path) -> None:
    stack = plan(tmp_path)
    credentials = load_credentials(tmp_path / "credentials.json")
    secrets = (credentials.redis_password, credentials.s3_secret_access_key, credentials.webhook_secret)
    words = [word for program in stack.programs for word in program.command]
    assert not any(secret in word for secret in secrets for word in words)


def test_the_version_that_callers_know_is_served_unless_the_user_decided(tmp_path: Path) -> None:
    assert env_of(plan(tmp_path))["GRANULE_VERSION_ALIASES"] == f"{OLD_VERSION}=granule/rubber-tile-mini"
    assert "GRANULE_VERSION_ALIASES" not in env_of(plan(tmp_path, version_aliases="0=granule/rubber-tile-mini"))
    assert "GRANULE_VERSION_ALIASES" not in env_of(plan(tmp_path, model="nauslava/rubber-tile-lora-v45"))


def test_receivers_on_this_machine_are_trusted_only_while_nobody_else_is_served(tmp_path: Path) -> None:
    assert env_of(plan(tmp_path))["GRANULE_WEBHOOK_ALLOWED_HOSTS"] == "127.0.0.1,localhost"
    assert "GRANULE_WEBHOOK_ALLOWED_HOSTS" not in env_of(plan(tmp_path, api_tokens="shop:secret"))
    assert "GRANULE_WEBHOOK_ALLOWED_HOSTS" not in env_of(plan(tmp_path, webhook_allowed_hosts="10.0.0.7"))


def test_a_proxy_of_the_machine_is_passed_by(tmp_path: Path) -> None:
    env = env_of(plan(tmp_path, {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}))
    assert env["NO_PROXY"] == env["no_proxy"] == "example.com,127.0.0.1,localhost"


def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    first = remembered_block(tmp_path / "ports", 3)
    assert remembered_block(tmp_path / "ports", 3) == first
    with socket.create_server(("127.0.0.1", first[1])):
        assert not is_free(first[1])
        assert first[1] not in remembered_block(tmp_path / "ports", 3)


def test_streams_and_holds_leave_threads_for_everybody_else(tmp_path: Path) -> None:
    settings = Settings()
    stack = plan_stack(settings, {}, folder=tmp_path, port=0)
    command = next(program.command for program in stack.programs if program.name == "api")
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    printed = subprocess.run([*command[:-1], "--print-config", command[-1]], env=environ, capture_output=True, text=True)
    found = re.search(r"^threads\s+= (\d+)$", printed.stdout, re.MULTILINE)
    assert found, printed.stderr
    assert settings.streams_max + settings.holds_max <= int(found[1]) - 4
    assert settings.streams_max + settings.holds_max + READS_MAX < int(found[1]) - 1
