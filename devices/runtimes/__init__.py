"""One file a runtime; importing this package registers the built-in ones."""

from devices.runtimes import onnxruntime  # noqa: F401  (registers itself)
