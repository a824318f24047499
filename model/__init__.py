"""What must be true: the reference model of the snapshot API. Pure: no I/O, no clock, no chance."""
