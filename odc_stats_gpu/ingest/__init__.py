"""The ingest room; see ARCHITECTURE.md."""
