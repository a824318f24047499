"""Power cuts: which states of a disk a write log permits, and what each of them shows when it is opened."""
