"""The output room; see ARCHITECTURE.md."""
