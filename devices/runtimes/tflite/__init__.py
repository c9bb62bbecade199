"""ONNX graphs as LiteRT (TensorFlow Lite) files."""
