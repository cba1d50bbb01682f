"""What the Lambda Web Adapter does with an event of a REST API, as far as the wire shows it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

PRELUDE_END = bytes(8)


def adapt(api: str, application: str) -> None:
    """Pass the events of the Runtime API at `api` to `application` until there are no more."""
    base_url = f"http://{api}/2018-06-01/runtime"
    with (
        httpx.Client(base_url=base_url, trust_env=False, timeout=60) as runtime,
        httpx.Client(base_url=application, trust_env=False, timeout=60) as client,
    ):
        while True:
            try:
                invocation = runtime.get("/invocation/next")
            except httpx.RemoteProtocolError:
                return
            request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
            event = invocation.json()
            request = client.build_request(
                event["httpMethod"],
                event["path"],
                headers={
                    **event["headers"],
                    "x-amzn-request-context": json.dumps(event["requestContext"]),
                },
                content=event["body"],
            )
            answer = client.send(request, stream=True)
            runtime.post(
                f"/invocation/{request_id}/response",
                headers={
                    "Lambda-Runtime-Function-Response-Mode": "streaming",
                    "Content-Type": "application/vnd.awslambda.http-integration-response",
                },
                content=_pieces(answer),
            )


def _pieces(answer: httpx.Response) -> Iterator[bytes]:
    prelude: dict[str, Any] = {"statusCode": answer.status_code, "headers": dict(answer.headers)}
    yield json.dumps(prelude).encode() + PRELUDE_END
    yield from answer.iter_raw()
    answer.close()
