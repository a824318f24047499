"""Power cuts under test: histories on disks that are listened to, and what is left when the power goes."""
