"""A runtime for networks with few-bit weights: C++ kernels, and what drives them from Python.

:mod:`devices.lowbit.format` is the file, :mod:`devices.lowbit.convert` makes one from an integer
ONNX model, :mod:`devices.lowbit.network` runs it, :mod:`devices.lowbit.build` compiles the
kernels; their tests say in NumPy what each computes.
"""
