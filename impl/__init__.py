"""Everything that can be put under test: drivers, the generic and group layers, block files."""
