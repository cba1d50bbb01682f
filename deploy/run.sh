#!/bin/sh
# The Lambda Web Adapter starts this: the ASGI application that UVICORN_APP names, on the adapter's port.
cd "$LAMBDA_TASK_ROOT" || exit
# The adapter lets its connection go after 4 s, by a clock that a frozen sandbox does not stop:
# were uvicorn's 5 s kept, each might use what the other has just closed.
exec python -m uvicorn --host 127.0.0.1 --port "$AWS_LWA_PORT" --timeout-keep-alive 900 \
    --loop asyncio --http httptools --ws none --lifespan on \
    --log-level warning --no-access-log --no-server-header --no-proxy-headers
