"""A stand-in for Ollama: its API on top of llama.cpp, with one small model built in."""
