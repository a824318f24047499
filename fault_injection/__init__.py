"""Making it go wrong: fault plans, and the block files and drivers that obey them."""
