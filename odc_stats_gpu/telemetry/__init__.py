"""The telemetry room; see ARCHITECTURE.md."""
