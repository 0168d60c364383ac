"""The queue room; see ARCHITECTURE.md."""
