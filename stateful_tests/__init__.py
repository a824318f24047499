"""The harness that users run: model and driver side by side."""
