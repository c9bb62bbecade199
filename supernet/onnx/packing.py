"""Low-bit model files of exported networks: see :mod:`search_spaces.model_files.packing`.

The packing itself is at the bottom, where the runtimes reach it too.
"""

from search_spaces.model_files.packing import WEIGHT_BITS, pack_model, pack_onnx

__all__ = ["WEIGHT_BITS", "pack_model", "pack_onnx"]
