"""The tasks room; see ARCHITECTURE.md."""
