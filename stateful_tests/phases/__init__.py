"""The ways to generate histories."""
