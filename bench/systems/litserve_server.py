"""The stand-in model behind LitServe: `python -m bench.systems.litserve_server PORT`."""

import sys
from typing import Any

import litserve
from fastapi import Response

from bench.systems.model import draw_png


class StandIn(litserve.LitAPI):
    """Draws one picture a request."""

    def setup(self, device: str) -> None:
        """Nothing is to be loaded."""

    def decode_request(self, request: dict[str, Any]) -> int:
        """Take the seed from the request."""
        return int(request["seed"])

    def predict(self, x: int) -> bytes:
        """Draw."""
        return draw_png(x)

    def encode_response(self, output: bytes) -> Response:
        """Answer with the PNG itself."""
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    litserve.LitServer(StandIn(), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error"
    )
