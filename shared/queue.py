"""How messages reach the workers: Celery over Redis, used as a dispatcher and nothing more.

A message is a hint that names a job or a delivery; the record in Redis decides whether there is anything to do. So nothing
here waits for results, schedules for later, retries a task, or recovers a lost message.
"""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from queue import Empty
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.errors import StoreUnavailable
from shared.jobs import Lane
from shared.redis_client import is_passing
from shared.settings import Settings

log = logging.getLogger(__name__)

RENDER_TASK = "granule.render"
DELIVER_TASK = "granule.deliver"
DELIVER_QUEUE = "deliveries"

PRIORITIES: dict[Lane, int] = {Lane.RECOVERY: 0, Lane.HIGH: 3, Lane.NORMAL: 6, Lane.LOW: 9}
"""Celery's priority of each lane. Kombu's Redis transport keeps one list for each of these four steps and empties 0 first."""

REFUSED_PAUSE_S = 1.0
PRIORITY_SEPARATOR = "\x06\x16"


class FastReconnectConsumer(Consumer):
    """Tries a lost broker again every half second to two seconds; Celery's own gap grows to thirty."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect with our intervals instead of those of `broker_connection_timeout`."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=0.5, interval_step=0.5, interval_max=2)
        return super().ensure_connected(conn)


class HintQoS(kombu_redis.QoS):
    """Frees a message's place among the prefetched ones even when its acknowledgement fails.

    Kombu keeps the place, Celery only logs the failure, and a worker that prefetches one message would never take another.
    What stays behind in Redis is a hint that comes back after the visibility time-out and finds nothing to do.
    """

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message. Raises what the connection raises."""
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            # Celery logs the errors of a connection, and ends the process over all others.
            raise RedisConnectionError(f"the message broker refuses: {error}") from error
        finally:
            virtual.QoS.ack(self, delivery_tag)


class HintChannel(kombu_redis.Channel):
    """A channel whose messages are hints.

    What is no JSON is dropped, and a server that takes no writes for the moment is asked again: Kombu would end the process.
    """

    QoS = HintQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the stubs leave it out
        except (json.JSONDecodeError, UnicodeDecodeError):
            log.exception("a message that cannot be read was dropped")
            return True
        except ResponseError as error:
            if not is_passing(error):
                raise
            log.warning("the message broker refuses: %s", error)
            time.sleep(REFUSED_PAUSE_S)
            # Where a replica answers, the server to ask may be another one by now.
            self.client.connection.disconnect()
            raise Empty from error


class HintTransport(kombu_redis.Transport):
    """Kombu's Redis transport for messages that are hints. What is JSON but no message is dropped."""

    Channel = HintChannel

    def _deliver(self, message: Any, queue: str | None) -> None:
        if _is_message(message):
            super()._deliver(message, queue)
        else:
            log.error("what is no message was dropped from %s: %.200r", queue, message)


class SentinelHintChannel(HintChannel, kombu_redis.SentinelChannel):
    """Such a channel to whichever server the Sentinels call the master."""


class SentinelHintTransport(HintTransport, kombu_redis.SentinelTransport):
    """Such a transport over those channels."""

    Channel = SentinelHintChannel


def _is_message(found: Any) -> bool:
    """Tell whether Kombu can take something for a message: it looks for these parts without asking whether they are there."""
    try:
        properties = found["properties"]
        return {"exchange", "routing_key"} <= set(properties["delivery_info"]) and bool(properties["delivery_tag"])
    except (KeyError, TypeError):
        return False


def render_queue(model: str) -> str:
    """Name the Celery queue of a model's render jobs."""
    return "render." + model.replace("/", ".")


def message_lists(model: str, *, prefix: str) -> list[str]:
    """Name the Redis lists that hold a model's waiting messages, one for each priority. `prefix` is that of all keys."""
    queue = prefix + render_queue(model)
    return [queue if not priority else f"{queue}{PRIORITY_SEPARATOR}{priority}" for priority in PRIORITIES.values()]


def make_celery(settings: Settings) -> Celery:
    """Build the Celery app. Nothing is connected yet."""
    broker, transport, further = _broker(settings)
    app = Celery("granule", broker=broker, set_as_current=False)
    app.conf.update(
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport=f"{__name__}:{transport.__name__}",
        broker_transport_options=further
        | {
            # Redelivery by age duplicates long jobs; the sweep recovers. This only clears what nobody will ever acknowledge.
            "visibility_timeout": 3600,
            "unacked_restore_throttle": 1,
            "priority_steps": list(PRIORITIES.values()),
            "queue_order_strategy": "priority",
            "sep": PRIORITY_SEPARATOR,
            # Queues carry the prefix as records do, so that installations on one server do not take each other's messages.
            "global_keyprefix": settings.redis_prefix,
            # Without these a peer that silently went away blocks the worker for good.
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        task_acks_late=True,
        task_default_priority=PRIORITIES[Lane.NORMAL],
        task_ignore_result=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
        # The lease decides what happens to a lost worker's job; True would run a poisonous one for ever.
        task_reject_on_worker_lost=False,
        task_store_errors_even_if_ignored=False,
        worker_consumer="shared.queue:FastReconnectConsumer",
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    return app


def _broker(settings: Settings) -> tuple[str, type[HintTransport], dict[str, Any]]:
    """Return the broker's address as Celery wants it, the transport, and what that must know besides."""
    if not settings.redis_sentinels:
        return settings.redis_url, HintTransport, {}
    master = urlsplit(settings.redis_url)
    account, at, _ = master.netloc.rpartition("@")
    addresses = [f"sentinel://{account}{at}{entry}{master.path}" for entry in settings.redis_sentinels]
    return ";".join(addresses), SentinelHintTransport, {"master_name": master.hostname}


def enqueue_render(app: Celery, job_id: str, *, model: str, lane: Lane) -> None:
    """Tell the model's workers about a job. Raises StoreUnavailable when the broker cannot be reached."""
    _send(app, RENDER_TASK, job_id, queue=render_queue(model), priority=PRIORITIES[lane])


def enqueue_delivery(app: Celery, delivery_id: str) -> None:
    """Tell the couriers about a webhook delivery that is due. Raises StoreUnavailable when the broker cannot be reached."""
    _send(app, DELIVER_TASK, delivery_id, queue=DELIVER_QUEUE, priority=PRIORITIES[Lane.NORMAL])


def _send(app: Celery, task: str, argument: str, *, queue: str, priority: int) -> None:
    try:
        app.send_task(task, args=[argument], queue=queue, priority=priority)
    except OperationalError as error:
        raise StoreUnavailable("the message broker does not answer") from error
    except ResponseError as error:
        if not is_passing(error):
            raise
        raise StoreUnavailable(f"the message broker refuses: {error}") from error
