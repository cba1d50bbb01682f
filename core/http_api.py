"""An HTTP API of AWS' API Gateway, of which Mangum takes a stage's name for part of the path."""

from mangum.handlers import HTTPGateway
from mangum.types import Scope


class StagedHTTPGateway(HTTPGateway):
    """Leaves a named stage out of the path; `$default` is not in there."""

    @property
    def scope(self) -> Scope:
        """Return the ASGI scope of the event."""
        scope = super().scope
        stage = f"/{self.event['requestContext'].get('stage')}"
        if scope["path"].startswith(f"{stage}/"):
            scope["path"] = scope["path"].removeprefix(stage)
        return scope
