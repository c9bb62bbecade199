"""Model files as data: integer ONNX packed at its own bit-widths."""
