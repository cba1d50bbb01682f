"""What clients may rely on: `schemas`, the one shape of `errors`, and the OpenAPI document."""
