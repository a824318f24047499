"""The command line: wires the folders together."""
