"""Observability: `logs`, `stats.Stats` by model, and `metrics.Metrics` for Prometheus."""
