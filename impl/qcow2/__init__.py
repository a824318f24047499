"""A qcow2 engine for real images."""
