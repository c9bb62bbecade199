"""Networks as ONNX files that run on integers, and as low-bit files."""
