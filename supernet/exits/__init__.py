"""One network that images leave early: a shared trunk, a head at each exit, a gate between."""
