"""The default latency predictor: a Gaussian process whose prior known devices teach."""
