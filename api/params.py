"""The body of a create, checked. The API's own description of it is generated from these same models."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.wrappers import Request

from api.problems import BodyInvalid, InvalidField
from shared.errors import InputInvalid
from shared.jobs import Event, Lane
from shared.manifest import EXACT, GuidanceMode
from shared.prompts import MAX_CHARACTERS
from shared.wire import PRIORITIES

SEED_MAX = 2**32 - 1
BODY_MAX_DEPTH = 16
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")

CANCEL_AFTER = re.compile(r"(?=[0-9])(?:(?P<h>[0-9]{1,3})h)?(?:(?P<m>[0-9]{1,4})m)?(?:(?P<s>[0-9]{1,6})s)?")
CANCEL_AFTER_MIN_S = 5

CANDIDATES_MAX = 4
ANGLE_MAX_DEG = 60
ANGLES_MAX = 4


def _all_different(angles: list[int]) -> list[int]:
    if len(set(angles)) < len(angles):
        raise ValueError("each angle is drawn once; leave out the repeated ones")
    return angles


Angle = Annotated[StrictInt, Field(ge=0, le=ANGLE_MAX_DEG)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class PredictionInput(BaseModel):
    """What to draw. Keys that are not listed are passed over: clients of other models send sizes and counts."""

    model_config = ConfigDict(frozen=True, extra="ignore", title="Input")

    prompt: Text = Field(
        description="The mix, as colours with their shares of 100 percent.",
        examples=["50% red, 30% black, 20% pearl"],
    )
    negative_prompt: Text | None = Field(None, description="What to keep out of the picture. Unset: the model's own.")
    seed: Annotated[StrictInt, Field(ge=-1, le=SEED_MAX)] | None = Field(
        None, description="The same seed and prompt give the same picture. Unset or -1: one is chosen and returned."
    )
    output_format: Literal["png", "jpg", "jpeg", "webp"] = Field("png", description="File format of the picture.")
    output_quality: Annotated[StrictInt, Field(ge=1, le=100)] = Field(
        95, description="Quality of jpg and webp, 1 to 100; png has no loss."
    )
    guidance_mode: GuidanceMode | None = Field(
        None,
        description="What leads the model to the ordered shares: plain, the words alone, or guided, a painted tile that has "
        "them exactly. Unset: the model's own.",
    )
    num_candidates: Annotated[StrictInt, Field(ge=1, le=CANDIDATES_MAX)] = Field(
        1, description="Draw up to this many, with seeds that follow each other, and hand out the one with the truest colours."
    )
    seamless: StrictBool | None = Field(
        None, description="Draw a tile whose opposite edges continue each other. Unset: only where angles need it."
    )
    angles: Annotated[list[Angle], Field(min_length=1, max_length=ANGLES_MAX), AfterValidator(_all_different)] = Field(
        [0],
        description="Camera angles in degrees from straight above. 0 is the tile itself, all others a floor of such tiles. "
        "One picture each, in this order; with more than one the output is a list.",
        examples=[[0, 30, 60]],
        json_schema_extra={"uniqueItems": True},
    )
    grout: StrictBool = Field(False, description="Lay the floor of the views at an angle with joints between the tiles.")
    legend: StrictBool = Field(
        False, description="Add a last picture with a swatch, the ordered and the measured share of each colour."
    )
    preview: StrictBool = Field(
        False, description="Show a rough picture at urls.preview while it is drawn. It changes nothing of the result."
    )
    profile: Annotated[str, Field(max_length=100)] = Field(
        EXACT,
        description="Which of the model's ways to draw: exact, its own, or a quicker one that its description lists. The "
        "same order in another profile is another picture.",
    )


class PredictionRequest(BaseModel):
    """The body of a create."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: PredictionInput
    version: str | None = Field(
        None, max_length=300, description="Version id, `owner/name:id` or `owner/name`; required at /v1/predictions."
    )
    webhook: str | None = Field(None, description="Public https address that is told about events of this prediction.")
    webhook_events_filter: list[Event] | None = Field(
        None, description="Which events are sent. Unset: output and completed.", max_length=len(Event)
    )
    webhook_completed: str | None = Field(None, description="Older spelling of a webhook for the completed event alone.")
    stream: bool | None = Field(None, description="Accepted for Replicate's clients: every prediction has a stream.")
    id: str | None = Field(None, description="With PUT: the same id as in the address, or nothing.")


def read_json(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object whose text can be written as UTF-8.

    Raises:
        UnsupportedMediaType: it is not declared as JSON. A page of another origin can send everything else unasked.
        RequestEntityTooLarge: its length was not announced, and it has as many bytes as are read at all.
        InputInvalid: it is not valid JSON, or not an object.
    """
    if not request.is_json:
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    data = request.get_data()
    if request.content_length is None and len(data) == request.max_content_length:
        raise RequestEntityTooLarge(f"the body is at most {request.max_content_length} bytes")
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
        # A number like 1e999 reads as infinity, which no answer about this order could hold.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except OSError as error:
        raise InputInvalid("the body did not arrive whole: its length or its chunks are wrong", field="body") from error
    except (ValueError, RecursionError) as error:
        raise InputInvalid(f"the body is not valid JSON: {error}", field="body") from error
    if not isinstance(body, dict):
        raise InputInvalid("the body must be a JSON object", field="body")
    if _is_deeper_than(BODY_MAX_DEPTH, body):
        raise InputInvalid(f"the body is nested more than {BODY_MAX_DEPTH} levels deep", field="body")
    return body


def _is_deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper_than(levels - 1, item) for item in inner)


def check_body(body: dict[str, Any]) -> PredictionRequest:
    """Check a create's body. Raises BodyInvalid, which lists every field that is wrong."""
    try:
        return PredictionRequest.model_validate(body)
    except ValidationError as error:
        fields = [_invalid_field(item["type"], item["loc"], item["msg"]) for item in error.errors(include_url=False)]
        detail = "; ".join(f"{field['field']}: {field['description']}" for field in fields)
        raise BodyInvalid(detail, fields) from error


def check_job_id(job_id: str) -> str:
    """Return an id that a caller chose. Raises InputInvalid unless it is 1 to 64 letters, digits, _ and -."""
    if not JOB_ID.fullmatch(job_id):
        raise InputInvalid("a prediction's id is 1 to 64 letters, digits, _ and -", field="id")
    return job_id


def check_idempotency_key(key: str | None) -> str | None:
    """Return the key as it is. Raises InputInvalid unless it is 1 to 255 printable ASCII characters without spaces."""
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise InputInvalid("a key is 1 to 255 printable ASCII characters without spaces", field="Idempotency-Key")
    return key


def check_priority(text: str | None, allowed: Collection[Lane]) -> Lane:
    """Return the lane that `X-Priority` names, in any case; without the header normal, or the next lower one allowed.

    Raises:
        InputInvalid: it is no lane, or none that the caller's token may order in.
    """
    lanes: dict[str, Lane] = {name: lane for lane, name in PRIORITIES.items() if lane in allowed}
    if text is None:
        return next(lane for lane in (Lane.NORMAL, Lane.LOW, Lane.HIGH) if lane in allowed)
    lane = lanes.get(text.strip().lower())
    if lane is None:
        raise InputInvalid(f"X-Priority is one of {', '.join(lanes)}", field="X-Priority")
    return lane


def check_cancel_after(text: str | None) -> float | None:
    """Return the seconds that `Cancel-After` gives the job, as in `30`, `30s`, `1m30s` or `2h30m`; None without it.

    Raises:
        InputInvalid: it has another form, or is less than 5 seconds.
    """
    if text is None:
        return None
    text = text.strip()
    match = CANCEL_AFTER.fullmatch(f"{text}s" if text.isdigit() else text)
    hours, minutes, seconds = (int(match[unit] or 0) for unit in "hms") if match else (0, 0, 0)
    total_s = 3600 * hours + 60 * minutes + seconds
    if total_s < CANCEL_AFTER_MIN_S:
        raise InputInvalid("Cancel-After is a time of at least 5 seconds, such as 30, 1m30s or 2h30m", field="Cancel-After")
    return float(total_s)


def _invalid_field(kind: str, location: tuple[int | str, ...], message: str) -> InvalidField:
    if kind == "extra_forbidden":
        message = f"unknown field; known are {', '.join(PredictionRequest.model_fields)}"
    elif kind == "model_type":
        message = "must be an object"
    return {"type": kind, "field": ".".join(map(str, location)), "description": message}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
