"""The colours of a model's palette, for pages and programs that offer them."""

from __future__ import annotations

from flask import Blueprint, Response

from api.context import authenticate, context
from api.resources import PaletteColor
from api.responses import json_response
from shared.palette import Color, fold

blueprint = Blueprint("colors", __name__)
blueprint.before_request(authenticate)


@blueprint.get("/<owner>/<name>/colors")
def list_colors(owner: str, name: str) -> Response:
    """List the colours that a model's tiles can be ordered in, in the order of its palette."""
    manifest = context().catalog.by_slug(f"{owner}/{name}")
    return json_response([_describe(color) for color in manifest.colors.colors])


def _describe(color: Color) -> PaletteColor:
    return {
        "code": color.code,
        "name": color.name,
        "name_ru": color.name_ru,
        "srgb": "#{:02X}{:02X}{:02X}".format(*color.srgb),
        "spellings": sorted({fold(spelling) for spelling in color.spellings}),
        "near": sorted({fold(word) for word in color.near}),
    }
