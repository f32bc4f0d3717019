"""The systems that `bench.overhead` compares: how each is installed and started, and what it does besides calling a model."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from infra.local.ports import free_block
from infra.local.process import Program
from infra.local.redis_server import RedisServer
from infra.local.stack import plan_stack
from shared.settings import REPOSITORY, load_settings

ENVIRONMENTS = REPOSITORY / ".bench"
READY_TIMEOUT_S = 120.0
SHARED_REQUIREMENTS = ("numpy", "pillow")


@dataclass(frozen=True)
class Site:
    """Where one system runs: its own `folder`, the interpreter that has its libraries, and the file of the model's marks."""

    folder: Path
    python: str
    marks: Path

    def environ(self, **extra: str) -> dict[str, str]:
        """The variables that its programs get."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRANULE_")}
        # Cog starts whatever python is first on PATH.
        path = f"{Path(self.python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        own = {"BENCH_MARKS": str(self.marks), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "PATH": path}
        return inherited | own | {"no_proxy": "127.0.0.1,localhost"} | extra


@dataclass(frozen=True)
class Running:
    """A system's programs in the order they are started, and the address its client is given."""

    programs: tuple[Program, ...]
    address: str


@dataclass(frozen=True)
class System:
    """One row of the comparison.

    `requirements` are pip's, installed into an environment of its own; none means Granule's. `queue`, `status` and `storage`
    say what it keeps of an order, and where the picture is in the end; `wire` what it is asked over. `client` is a module of
    `bench.systems`; it needs the system's own libraries where `client_is_native`.
    """

    name: str
    requirements: tuple[str, ...]
    queue: str
    status: str
    storage: str
    wire: str
    plan: Callable[[Site], Running]
    client: str = "http_client"
    client_is_native: bool = False


def environment_for(system: System) -> str | None:
    """Return an interpreter with the system's libraries, made at the first call. None: they cannot be installed here."""
    if not system.requirements:
        return sys.executable
    folder = ENVIRONMENTS / system.name.lower().replace(" ", "-")
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(repr((system.requirements, sys.version_info[:2])).encode()).hexdigest()
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *system.requirements, *SHARED_REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        sys.stderr.write(f"{system.name} is left out, pip could not install it: {(errors or [done.stderr[-300:]])[-1]}\n")
        return None
    stamp.write_text(wanted)
    return str(python)


def _granule(site: Site) -> Running:
    settings = load_settings().model_copy(update={"data_dir": site.folder})
    stack = plan_stack(settings, site.environ(), folder=site.folder, port=0)
    stand_in = ("--app", "bench.systems.granule_app")
    programs = [
        replace(program, command=(*program.command, *stand_in)) if program.name == "render" else program
        for program in stack.programs
    ]
    return Running(tuple(replace(program, quiet=True) for program in programs), stack.url)


def _with_redis(site: Site, arguments: tuple[str, ...]) -> Running:
    """A worker of a queue on Redis, which keeps what it is told as Granule's does."""
    redis = RedisServer(directory=site.folder / "redis", port=free_block(1)[0], password=secrets.token_hex(16))
    arguments = tuple(redis.url if argument == "REDIS_URL" else argument for argument in arguments)
    env = site.environ(BENCH_REDIS_URL=redis.url, C_FORCE_ROOT="1")
    return Running((redis.program(os.environ), _program("worker", site, arguments, env)), redis.url)


def _celery(site: Site) -> Running:
    options = ("--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat")
    return _with_redis(site, ("-m", "celery", "--quiet", "--app", "bench.systems.celery_task", "worker", *options))


def _rq(site: Site) -> Running:
    worker = ("--worker-class", "rq.worker.SimpleWorker", "--url", "REDIS_URL", "--quiet")
    return _with_redis(site, ("-m", "rq.cli", "worker", *worker))


def _cog(site: Site) -> Running:
    predictor = str(REPOSITORY / "bench" / "systems" / "cog_server.py") + ":Predictor"
    port = free_block(1)[0]
    env = site.environ(COG_PREDICT_TYPE_STUB=predictor, PORT=str(port))
    arguments = ("-m", "cog.server.http", "--host", "127.0.0.1")
    return _served(site, port, arguments, "/health-check", "/predictions", env)


def _litserve(site: Site) -> Running:
    port = free_block(1)[0]
    return _served(site, port, ("-m", "bench.systems.litserve_server", str(port)), "/health", "/predict", site.environ())


def _bentoml(site: Site) -> Running:
    port = free_block(1)[0]
    arguments = ("-m", "bentoml", "serve", "bench.systems.bentoml_server:StandIn", "--host", "127.0.0.1", "--port", str(port))
    env = site.environ(BENTOML_DO_NOT_TRACK="True", BENTOML_HOME=str(site.folder / "home"))
    return _served(site, port, arguments, "/readyz", "/draw", env)


def _ray_serve(site: Site) -> Running:
    port = free_block(1)[0]
    env = site.environ(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", BENCH_PORT=str(port))
    return _served(site, port, ("-m", "bench.systems.ray_server"), "/-/healthz", "/", env)


def _served(site: Site, port: int, arguments: tuple[str, ...], health: str, route: str, env: Mapping[str, str]) -> Running:
    url = f"http://127.0.0.1:{port}"
    program = _program("server", site, arguments, env)
    return Running((replace(program, ready=lambda: _is_ready(url + health)),), url + route)


def _program(name: str, site: Site, arguments: tuple[str, ...], env: Mapping[str, str]) -> Program:
    return Program(
        name=name, command=(site.python, *arguments), env=env, cwd=REPOSITORY, ready_timeout_s=READY_TIMEOUT_S, quiet=True
    )


def _is_ready(url: str) -> bool:
    """Whether a server answers, and does not answer that it still starts, as Cog does with status 200."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=2)
        except requests.RequestException:
            return False
    return answer.ok and "STARTING" not in answer.text


NONE = "in the answer"
SYSTEMS = (
    System("Granule", (), "Redis, on disk", "by id, stream, webhook", "S3 and a URL", "HTTP", _granule, "granule_client"),
    System(
        "Celery task", (), "Redis, on disk", "by id, unknown ids wait", "bytes in Redis", "Redis", _celery, "celery_task", True
    ),
    System("rq", ("rq==3.0.0",), "Redis, on disk", "by id", "bytes in Redis", "Redis", _rq, "rq_job", True),
    System("Cog", ("cog==0.23.1",), "none, busy is 409", "webhook", NONE, "HTTP", _cog),
    System("LitServe", ("litserve==0.2.19",), "in memory", "none", NONE, "HTTP", _litserve),
    System("BentoML", ("bentoml==1.4.38",), "in memory", "none", NONE, "HTTP", _bentoml),
    System("Ray Serve", ("ray[serve]==2.60.0",), "in memory", "none", NONE, "HTTP", _ray_serve),
)
