#!/bin/sh
# The Lambda Web Adapter starts this: the ASGI application that UVICORN_APP names, on the adapter's port.
cd "$LAMBDA_TASK_ROOT" || exit
exec python -m core.serving.web_adapter
