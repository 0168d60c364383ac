"""The plugins room; see ARCHITECTURE.md."""
