"""The OpenAI- and Anthropic-compatible paths: `relay.relay` passes them to Ollama's own."""
