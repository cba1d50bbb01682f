"""API keys: `store.KeyStore` checks them, `python -m core.keys` edits their file."""
