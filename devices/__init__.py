"""How a model file is measured: runtimes, protocol, statistics, store. Loads no torch."""
