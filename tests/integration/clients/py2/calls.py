"""One call of the second official Python client: `calls.py NAME OPTIONS`. OPTIONS and the answer on stdout are JSON."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import replicate
from replicate import APIStatusError, Replicate
from replicate._streaming import SSEDecoder
from replicate.exceptions import ModelError

NAME, OPTIONS = sys.argv[1], json.loads(sys.argv[2])
REQUESTS: list[str] = []


class Recorder(httpx.HTTPTransport):
    """Notes every request, and drops the first answer if told so."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        REQUESTS.append(request.method)
        response = super().handle_request(request)
        if OPTIONS.get("lose_first_answer") and len(REQUESTS) == 1:
            response.close()
            raise httpx.ReadTimeout("the answer got lost", request=request)
        return response


def run(client: Replicate) -> object:
    return client.run(OPTIONS["ref"], **OPTIONS["arguments"])


def use(client: Replicate) -> object:
    # Only the function of the module works in this release; it makes a client of its own.
    os.environ |= {"REPLICATE_API_TOKEN": OPTIONS["token"], "REPLICATE_BASE_URL": OPTIONS["base_url"]}
    return replicate.get_path_url(replicate.use(OPTIONS["ref"])(**OPTIONS["arguments"]["input"]))


def stream(client: Replicate) -> object:
    os.environ |= {"REPLICATE_API_TOKEN": OPTIONS["token"], "REPLICATE_BASE_URL": OPTIONS["base_url"]}
    with warnings.catch_warnings(action="ignore"):  # it is on its way out, and the clients' users have it still
        return list(replicate.stream(OPTIONS["ref"], input=OPTIONS["input"]))


def events(client: Replicate) -> object:
    with httpx.stream("GET", client.predictions.create(**OPTIONS["arguments"]).urls.stream, timeout=30) as answer:
        found = list(SSEDecoder().iter_bytes(answer.iter_bytes()))
    return [{"event": each.event, "data": each.data, "id": each.id} for each in found]


def create(client: Replicate) -> object:
    return client.predictions.create(**OPTIONS["arguments"]).to_dict(mode="json")


def create_many(client: Replicate) -> object:
    return [client.predictions.create(**OPTIONS["arguments"]).id for _ in range(OPTIONS["count"])]


def wait(client: Replicate) -> object:
    return client.predictions.wait(OPTIONS["id"]).to_dict(mode="json")


def cancel(client: Replicate) -> object:
    return client.predictions.cancel(prediction_id=OPTIONS["id"]).to_dict(mode="json")


def listed(client: Replicate) -> object:
    return [prediction.id for prediction in client.predictions.list()]


def surroundings(client: Replicate) -> object:
    owner, name = OPTIONS["model"].split("/")
    found = client.models.get(model_owner=owner, model_name=name)
    deployed = {"deployment_owner": owner, "deployment_name": name}
    return {
        "account": client.account.get().username,
        "models": [model.name for model in client.models.list()],
        "version": found.latest_version.id,
        "hardware": client.hardware.list(),
        "secret": client.webhooks.default.secret.get().key,
        "deployment": client.deployments.get(**deployed).current_release.model,
        "deployed": client.deployments.predictions.create(**deployed, input=OPTIONS["input"]).model,
    }


CALLS: dict[str, Callable[[Replicate], object]] = {
    call.__name__: call for call in (run, use, stream, events, create, create_many, wait, cancel, listed, surroundings)
}


def main() -> dict[str, Any]:
    with httpx.Client(transport=Recorder(), follow_redirects=True, timeout=OPTIONS.get("timeout_s", 60)) as http_client:
        client = Replicate(
            bearer_token=OPTIONS["token"],
            base_url=OPTIONS["base_url"],
            http_client=http_client,
            max_retries=OPTIONS.get("max_retries", 2),
            timeout=OPTIONS.get("timeout_s", 60),
        )
        try:
            return {"result": CALLS[NAME](client), "requests": REQUESTS}
        except APIStatusError as error:
            retry_after = error.response.headers.get("retry-after")
            return {"error": error.body, "status": error.status_code, "retry_after": retry_after, "requests": REQUESTS}
        except ModelError as error:
            return {"error": str(error), "requests": REQUESTS}


if __name__ == "__main__":
    assert replicate.__version__ == "2.0.0-beta.4", replicate.__version__
    sys.stdout.write(json.dumps(main()))
