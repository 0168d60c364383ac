"""The demo room; see ARCHITECTURE.md."""
