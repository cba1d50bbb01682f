"""What every endpoint shares: settings, schemas, errors and the Ollama client."""
