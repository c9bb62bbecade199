"""One file a runtime; importing this package registers the built-in ones.

A runtime's own library is imported when one is built, so a missing one is reported then,
with the command that installs it.
"""

from devices.runtimes import (  # noqa: F401
    command,
    executorch,
    inductor,
    litert,
    lowbit,
    mnn,
    ncnn,
    onnxruntime,
    openvino,
    tract,
)
