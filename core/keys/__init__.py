"""API keys: `store.KeyStore` checks them, `python -m core.keys` edits the file they are in."""
