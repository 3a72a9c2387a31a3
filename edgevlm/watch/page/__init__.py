"""The live page for the person at the line, /health and /ready for a supervisor, /metrics for Prometheus."""
