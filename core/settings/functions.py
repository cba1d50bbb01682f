"""The settings of functions on AWS Lambda, and how to tell a function from a server."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.settings.values import SECRET, BasePath, Port


class FunctionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The variables that AWS Lambda sets for a function, and those that only functions need."""

    aws_lambda_function_name: Annotated[
        str, Meta(description="set by AWS Lambda: the gateway then names the client's address")
    ] = ""
    aws_session_token: Annotated[
        str, SECRET, Meta(description="set by AWS Lambda: unlocks its extension for secrets")
    ] = ""
    parameters_secrets_extension_http_port: Annotated[
        Port, Meta(description="port of that extension")
    ] = 2773
    api_gateway_base_path: Annotated[
        BasePath, Meta(description="path before /api on a custom domain of AWS' API Gateway")
    ] = ""

    @property
    def is_function(self) -> bool:
        """Whether this process is a function: frozen between requests, behind a gateway."""
        return bool(self.aws_lambda_function_name)
