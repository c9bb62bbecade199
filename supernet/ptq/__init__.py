"""Quantisation of a trained float network from a few unlabelled images, without training."""
