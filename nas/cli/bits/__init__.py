"""``nas bits``: the best mixed-precision allocation for a trained network."""
