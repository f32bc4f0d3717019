"""The stand-in model as a Cog predictor, for `python -m cog.server.http`."""

import tempfile
from pathlib import Path

from cog import BasePredictor, Input
from cog import Path as CogPath

from bench.systems.model import draw_png


class Predictor(BasePredictor):
    """Draws one picture a prediction."""

    def predict(self, prompt: str = Input(), seed: int = Input()) -> CogPath:
        """Return the picture as a file, which Cog puts into the answer as base64."""
        file = Path(tempfile.mkstemp(suffix=".png")[1])
        file.write_bytes(draw_png(seed))
        return CogPath(file)
