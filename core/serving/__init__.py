"""How the application runs: `exchange` frames every request, `server` is uvicorn, `aws` Lambda."""
