"""Access to Ollama: `client.OllamaClient` for chats and models, `upstream.Upstream` for health."""
