"""Every error Granule raises on purpose, in one tree.

Each class has a stable `code` (part of the public contract: it is shown to callers and stored in job records) and says
with `retryable` whether the same request may succeed later. HTTP status codes are decided in `api/`, nowhere else.
"""

from __future__ import annotations


class GranuleError(Exception):
    """Base of all errors raised on purpose. `detail` is one sentence for a person; `field` names the offending input."""

    code = "internal_error"
    retryable = False

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class InputInvalid(GranuleError):
    """A value in the request is of the wrong type, out of bounds, or unknown."""

    code = "invalid_input"


class PromptInvalid(InputInvalid):
    """The mix in the prompt cannot be rendered: shares, colours or length are wrong."""

    code = "invalid_prompt"


class WebhookUrlRefused(InputInvalid):
    """A webhook address is malformed or points where the server must not send requests."""

    code = "webhook_url_refused"


class Unauthenticated(GranuleError):
    """No token, or one that is not known."""

    code = "unauthenticated"


class Forbidden(GranuleError):
    """The token is known, and not for this."""

    code = "forbidden"


class NotFound(GranuleError):
    """The thing named in the request does not exist, or is not the caller's."""

    code = "not_found"


class Gone(GranuleError):
    """It existed, and its data has been removed."""

    code = "gone"


class ModelUnknown(NotFound):
    """The request names a model or version that this server has no manifest for."""

    code = "model_unknown"


class IdempotencyConflict(GranuleError):
    """The idempotency key was used before with a different body."""

    code = "idempotency_conflict"


class QueueFull(GranuleError):
    """More jobs are waiting than the operator allows. `retry_after_s` is a whole number of seconds."""

    code = "queue_full"
    retryable = True

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class StreamsFull(QueueFull):
    """This process holds as many event streams open as it may."""

    code = "streams_full"


class RateLimited(GranuleError):
    """The token has placed as many orders as it may in one minute (`limit`). `retry_after_s` is a whole number of seconds."""

    code = "rate_limited"
    retryable = True

    def __init__(self, detail: str, *, limit: int, retry_after_s: int) -> None:
        super().__init__(detail)
        self.limit = limit
        self.retry_after_s = retry_after_s


class StoreUnavailable(GranuleError):
    """Redis did not answer in time; nothing is known about the outcome and the move may be replayed."""

    code = "store_unavailable"
    retryable = True


class StorageUnavailable(GranuleError):
    """The S3-compatible server did not answer or refused for a reason that may pass."""

    code = "storage_unavailable"
    retryable = True


class SettingsInvalid(GranuleError):
    """An environment variable has a value that cannot work. The process does not start."""

    code = "invalid_settings"


class PaletteInvalid(GranuleError):
    """The palette file is missing, malformed or ambiguous."""

    code = "invalid_palette"


class ManifestInvalid(GranuleError):
    """A model manifest is missing, malformed or names files that do not fit together."""

    code = "invalid_manifest"


class WeightsInvalid(GranuleError):
    """A weights file is absent, damaged, of a refused format, or did not load in full. The worker does not become ready."""

    code = "invalid_weights"


class RenderFailed(GranuleError):
    """The pipeline raised while it was drawing."""

    code = "render_failed"


class DeviceLost(RenderFailed):
    """The device is in a state that no later call on it survives; only a new process gets it back."""

    code = "device_lost"
    retryable = True


class OutOfMemory(RenderFailed):
    """The device ran out of memory while it was drawing."""

    code = "out_of_memory"
    retryable = True
