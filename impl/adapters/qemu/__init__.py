"""The real QEMU as a system under test: its disks are block files of the harness, served to it over NBD."""
