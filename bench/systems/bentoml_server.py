"""The stand-in model behind BentoML, for `bentoml serve bench.systems.bentoml_server:StandIn`."""

import tempfile
from pathlib import Path

import bentoml

from bench.systems.model import draw_png


@bentoml.service(workers=1, traffic={"concurrency": 1, "timeout": 60}, metrics={"enabled": False})
class StandIn:
    """Draws one picture a request."""

    @bentoml.api
    def draw(self, prompt: str, seed: int) -> Path:
        """Answer with the PNG itself."""
        file = Path(tempfile.mkstemp(suffix=".png")[1])
        file.write_bytes(draw_png(seed))
        return file
