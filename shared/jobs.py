"""What a job is: its statuses, the moves between them, and the frozen record that the store hands out."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

OutputFormat = Literal["png", "jpg", "webp"]

ID_BYTES = 16


class Status(StrEnum):
    """Where a job is in its life. The store refuses every move that `TRANSITIONS` does not list."""

    QUEUED = "queued"
    """Recorded and waiting; a message about it may or may not be on its way."""
    RUNNING = "running"
    """One worker holds its lease."""
    SUCCEEDED = "succeeded"
    """Rendered, uploaded and published. Terminal."""
    FAILED = "failed"
    """It will not be rendered; `error` says why. Terminal, unless an operator brings it back from the dead letters."""
    CANCELED = "canceled"
    """Called off by its owner or by its deadline, and no worker holds it any more. Terminal."""

    @property
    def is_terminal(self) -> bool:
        """True when nothing more happens by itself."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELED}),
    Status.SUCCEEDED: frozenset(),
    # By `requeue` only, of a job whose workers died over it.
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELED: frozenset(),
}


class Lane(StrEnum):
    """Which line a job waits in. Lanes are served in the order written here; within one, first come, first served."""

    RECOVERY = "recovery"
    """Given back by a worker that died or drained. Never asked for by a caller."""
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Event(StrEnum):
    """Moments in a job's life that a webhook can ask for."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


DEFAULT_EVENTS = (Event.OUTPUT, Event.COMPLETED)


@dataclass(frozen=True, slots=True)
class RenderSpec:
    """All that decides the pixels and their encoding.

    `prompt` is the full text the model sees, `seed` 0 to 2**32 - 1. With a `strength`, above 0 and at most 1, drawing begins
    not with noise but with a painted tile that is noised that far: `painted` holds its colours as (`#RRGGBB`, percent), and
    `granule_px` is the mean width of its granules. `angles` are the views that are handed out, in degrees from straight above.
    `guidance_end` is the part of the steps, 0 to 1, that are guided; `distilled` names the profile whose own UNet draws (empty:
    the model's). A default stays what it is for good: records leave it out.
    """

    prompt: str
    negative_prompt: str | None
    seed: int
    num_inference_steps: int
    guidance_scale: float
    width_px: int
    height_px: int
    output_format: OutputFormat
    output_quality: int
    strength: float | None = None
    painted: tuple[tuple[str, float], ...] = ()
    granule_px: float = 34.0
    seamless: bool = False
    num_candidates: int = 1
    angles: tuple[int, ...] = (0,)
    grout: bool = False
    legend: bool = False
    guidance_end: float = 1.0
    distilled: str = ""

    @property
    def steps(self) -> int:
        """Denoising steps of one picture: all of them, or the last part, at least one, when it begins with a painted tile."""
        if self.strength is None:
            return self.num_inference_steps
        return min(self.num_inference_steps, max(1, round(self.num_inference_steps * self.strength)))

    @property
    def guided_steps(self) -> int:
        """How many of the steps, from the first, classifier-free guidance acts in: at least one."""
        return max(1, round(self.steps * self.guidance_end))

    @property
    def total_steps(self) -> int:
        """The steps of all candidates; fewer are made when one of the first is good enough."""
        return self.steps * self.num_candidates

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RenderSpec:
        """Read back what `JobSpec.to_json` wrote, or all of `asdict`. Fields that are not there have their defaults.

        Raises:
            TypeError: there is a field of a newer version, without which another picture would be drawn.
        """
        painted = tuple((srgb, share) for srgb, share in data.get("painted", ()))
        return cls(**{**data, "painted": painted, "angles": tuple(data.get("angles", (0,)))})


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The part of a job that never changes after it was accepted.

    `input` is the caller's own, as it was sent; `mix` holds the ordered colours as `[caption, percent]`, empty for free text;
    `base_url` is the address that URLs in webhook bodies start with; `file_token` is the unguessable part of its file URLs;
    `cancel_after_s` counts from creation to the moment at which the job is called off if it has not ended; `stream_token` is
    the unguessable part of the address that its events are streamed at (empty: nowhere); `deployment` is the owner/name it was
    ordered from, empty where it was ordered from a model or version.
    """

    id: str
    tenant: str
    model: str
    version: str
    lane: Lane
    input: dict[str, Any]
    render: RenderSpec
    mix: list[tuple[str, float]]
    warnings: list[str]
    base_url: str
    file_token: str
    filename: str
    webhook: str | None = None
    webhook_events: list[Event] = field(default_factory=list)
    cancel_after_s: float | None = None
    stream_token: str = ""
    deployment: str = ""

    @property
    def wants_preview(self) -> bool:
        """Whether rough pictures are shown while it is drawn. The input says so, and no field: it changes no pixel."""
        return self.input.get("preview") is True and bool(self.stream_token)

    def to_json(self) -> str:
        """Serialise for the record. Fields at their default are left out: a version that has no such field reads it, too."""
        return _compact(_beyond_defaults(self) | {"render": _beyond_defaults(self.render)})

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Read back what `to_json` wrote. Raises TypeError where a newer version wrote a field that is unknown here."""
        data = json.loads(text)
        data["lane"] = Lane(data["lane"])
        data["render"] = RenderSpec.from_dict(data["render"])
        data["mix"] = [(name, share) for name, share in data["mix"]]
        data["webhook_events"] = [Event(event) for event in data["webhook_events"]]
        return cls(**data)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed or was canceled: the stable `code` of `shared.errors` and one sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Output:
    """One stored picture: its object key, the name it is served under, and what it is.

    `variant` is the part of the name that tells it from the order's other pictures, such as `30deg`; empty for the tile.
    """

    key: str
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a succeeded job leaves: its pictures and what is known about them.

    `thumbnails` are small versions of the pictures, in their order; jobs of older versions have none.
    `composition` is a list of `{color, ordered, measured}` in percent, `color_error` the total variation from 0 to 1 (None when
    the order was free text), `provenance` what can change a pixel, `predict_time_s` the time the pipeline took. `tile_score`
    is 0 to 1, `seam_score` 1 where no seam is; both are None where they were not measured. `candidates` is how many pictures
    were drawn to choose from.
    """

    outputs: list[Output]
    predict_time_s: float
    provenance: dict[str, Any] = field(default_factory=dict)
    composition: list[dict[str, Any]] | None = None
    color_error: float | None = None
    tile_score: float | None = None
    seam_score: float | None = None
    candidates: int = 1
    thumbnails: list[Output] = field(default_factory=list)

    @property
    def files(self) -> list[Output]:
        """Everything that is stored of it: the pictures, and their small versions."""
        return [*self.outputs, *self.thumbnails]

    def to_json(self) -> str:
        """Serialise for the record."""
        return _compact(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read back what `to_json` wrote. What a newer version measured beyond it is passed over."""
        data = json.loads(text)
        for files in ("outputs", "thumbnails"):
            data[files] = [Output(**_known(Output, output)) for output in data.get(files, ())]
        return cls(**_known(cls, data))


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _beyond_defaults(spec: JobSpec | RenderSpec) -> dict[str, Any]:
    """Return the fields that say something. One whose default is made anew each time, such as a list, is always there."""
    whole = asdict(spec)
    return {known.name: whole[known.name] for known in fields(spec) if whole[known.name] != known.default}


def _known(kind: type[Output | Result], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {known.name for known in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the record held it at one moment. Times are milliseconds since 1970 on Redis's clock.

    `queued_ms` is since when it waited for the worker it has or waits for. `logs` is the end of what was logged,
    `logged_bytes` how much that was in all; `expires_ms` is when the data is due to be removed, `reused_from` the job whose
    stored picture was the answer to this one. `traceparent` names the span of the request that ordered it, None where no trace
    was begun.
    """

    spec: JobSpec
    status: Status
    created_ms: int
    seq: int
    fence: int = 0
    crashes: int = 0
    worker: str | None = None
    step: int = 0
    logs: str = ""
    logged_bytes: int = 0
    cancel_requested: bool = False
    queued_ms: int | None = None
    started_ms: int | None = None
    completed_ms: int | None = None
    deadline_ms: int | None = None
    expires_ms: int | None = None
    result: Result | None = None
    error: JobError | None = None
    data_removed: bool = False
    reused_from: str | None = None
    traceparent: str | None = None

    @property
    def id(self) -> str:
        """The job's id, the same as on the wire."""
        return self.spec.id

    @property
    def waited_s(self) -> float:
        """How long it waited for the worker that claimed it last; 0 before the first claim."""
        if self.started_ms is None:
            return 0.0
        return max(0, self.started_ms - (self.queued_ms or self.created_ms)) / 1000

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Job:
        """Build from the fields of the Redis hash."""
        return cls(
            spec=JobSpec.from_json(fields["spec"]),
            status=Status(fields["status"]),
            created_ms=int(fields["created_ms"]),
            seq=int(fields["seq"]),
            fence=int(fields.get("fence", 0)),
            crashes=int(fields.get("crashes", 0)),
            worker=fields.get("worker"),
            step=int(fields.get("step", 0)),
            logs=fields.get("logs", ""),
            logged_bytes=int(fields.get("logged_bytes", 0)),
            cancel_requested="cancel" in fields,
            queued_ms=_optional_int(fields, "queued_ms"),
            started_ms=_optional_int(fields, "started_ms"),
            completed_ms=_optional_int(fields, "completed_ms"),
            deadline_ms=_optional_int(fields, "deadline_ms"),
            expires_ms=_optional_int(fields, "expires_ms"),
            result=Result.from_json(fields["result"]) if "result" in fields else None,
            error=JobError(**json.loads(fields["error"])) if "error" in fields else None,
            data_removed="data_removed" in fields,
            reused_from=fields.get("reused_from"),
            traceparent=fields.get("traceparent"),
        )


def _optional_int(fields: Mapping[str, str], name: str) -> int | None:
    return int(fields[name]) if name in fields else None


def new_id() -> str:
    """Return a fresh job id: 128 random bits as 26 lower-case base32 characters, the form that Replicate uses."""
    return base64.b32encode(secrets.token_bytes(ID_BYTES)).decode().rstrip("=").lower()


def new_seed() -> int:
    """Choose a seed for an order that named none: 0 to 2**32 - 1."""
    return secrets.randbits(32)
