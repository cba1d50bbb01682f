"""The OpenAI- and Anthropic-compatible paths: `relay.relay` answers them from Ollama's own."""
