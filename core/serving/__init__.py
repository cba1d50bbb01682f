"""Running the application: `exchange` wraps each request, `server` is uvicorn, `aws` Lambda."""
