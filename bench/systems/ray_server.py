"""The stand-in model behind Ray Serve: `python -m bench.systems.ray_server`, on the port `BENCH_PORT`."""

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from bench.systems.model import draw_png


@serve.deployment(num_replicas=1, max_ongoing_requests=1)
class StandIn:
    """Draws one picture a request."""

    async def __call__(self, request: Request) -> Response:
        """Answer with the PNG itself."""
        return Response(draw_png((await request.json())["seed"]), media_type="image/png")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(StandIn.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
