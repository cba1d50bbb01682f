"""A stand-in for Ollama: `app.create_app` has its API, `llama.Llama` runs one small model."""
