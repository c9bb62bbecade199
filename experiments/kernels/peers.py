"""Others' products of matrices of few bits: ggml's, and ONNX Runtime's ``MatMulNBits``.

ggml comes with llama-cpp-python (the extra ``peers`` of this benchmark, compiled on installation),
or from a folder with ``libggml-base`` and ``libggml-cpu``. A peer that is not there raises
:class:`PeerMissing`, and the benchmark says so.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[], object]
GGML_TYPES = {"q4_0": 2, "q2_k": 10, "tq2_0": 35}


class PeerMissing(Exception):
    """A peer cannot be reached; the message says why."""


class Ggml:
    """ggml's CPU backend by its C interface, with ``threads`` threads.

    Args:
        threads: of its graphs.
        folder: of its shared libraries; by default those of llama-cpp-python.

    Raises:
        PeerMissing: there is none.
    """

    def __init__(self, threads: int = 1, folder: Path | None = None) -> None:
        if folder is None:
            found = importlib.util.find_spec("llama_cpp")
            if found is None or not found.submodule_search_locations:
                raise PeerMissing("llama-cpp-python is not installed, and no folder was given")
            folder = Path(next(iter(found.submodule_search_locations))) / "lib"
        paths = {n: sorted(Path(folder).rglob(f"lib{n}.so")) for n in ("ggml-base", "ggml-cpu")}
        missing = [name for name, found_paths in paths.items() if not found_paths]
        if missing:
            raise PeerMissing(f"{folder} has no {' and no '.join(missing)}")
        self.base = ctypes.CDLL(str(paths["ggml-base"][0]), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(paths["ggml-cpu"][0]), mode=ctypes.RTLD_GLOBAL)
        self._declare()
        self.backend = self.cpu.ggml_backend_cpu_init()
        self.cpu.ggml_backend_cpu_set_n_threads(self.backend, threads)

    def _declare(self) -> None:
        p, i64, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t

        class Init(ctypes.Structure):
            _fields_ = [("size", size), ("buffer", p), ("no_alloc", ctypes.c_bool)]

        self._init = Init
        signatures: dict[str, tuple[object, list[object]]] = {
            "ggml_init": (p, [Init]),
            "ggml_new_tensor_2d": (p, [p, ctypes.c_int, i64, i64]),
            "ggml_mul_mat": (p, [p, p, p]),
            "ggml_new_graph": (p, [p]),
            "ggml_build_forward_expand": (None, [p, p]),
            "ggml_quantize_chunk": (size, [ctypes.c_int, p, p, i64, i64, i64, p]),
            "ggml_row_size": (size, [ctypes.c_int, i64]),
            "ggml_backend_alloc_ctx_tensors": (p, [p, p]),
            "ggml_backend_alloc_ctx_tensors_from_buft": (p, [p, p]),
            "ggml_backend_tensor_set": (None, [p, p, size, size]),
            "ggml_backend_tensor_get": (None, [p, p, size, size]),
            "ggml_backend_graph_compute": (ctypes.c_int, [p, p]),
            "ggml_backend_reg_dev_get": (p, [p, size]),
            "ggml_backend_reg_get_proc_address": (p, [p, ctypes.c_char_p]),
            "ggml_backend_cpu_init": (p, []),
            "ggml_backend_cpu_reg": (p, []),
            "ggml_backend_cpu_set_n_threads": (None, [p, ctypes.c_int]),
        }
        for name, (result, arguments) in signatures.items():
            library = self.cpu if name.startswith("ggml_backend_cpu") else self.base
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def _repacked(self) -> list[int]:
        """The buffer types that lay weights out for this processor."""
        registry = self.cpu.ggml_backend_cpu_reg()
        address = self.base.ggml_backend_reg_get_proc_address(
            registry, b"ggml_backend_dev_get_extra_bufts"
        )
        if not address:
            return []
        find = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)
        listed = find(self.base.ggml_backend_reg_dev_get(registry, 0))
        found: list[int] = []
        while listed and listed[len(found)]:
            found.append(listed[len(found)])
        return found

    def products(
        self, kind: str, weights: list[np.ndarray], x: np.ndarray, *, repack: bool = False
    ) -> tuple[Run, Callable[[], np.ndarray]]:
        """Return a call of a chain of products, and one that reads the last result.

        Args:
            kind: of ``GGML_TYPES``.
            weights: float32 (outputs, channels) each; quantised by ggml.
            x: float32 (rows, channels), the input of every product.
            repack: lay the weights out for this processor, as ``llama.cpp`` does on loading.
        """
        rows, channels = x.shape
        number = GGML_TYPES[kind]
        weights_context = self.base.ggml_init(self._init(1 << 20, None, True))
        context = self.base.ggml_init(self._init(1 << 22, None, True))
        held = [
            self.base.ggml_new_tensor_2d(weights_context, number, channels, len(w)) for w in weights
        ]
        source = self.base.ggml_new_tensor_2d(context, 0, channels, rows)
        graph = self.base.ggml_new_graph(context)
        results = [self.base.ggml_mul_mat(context, w, source) for w in held]
        for result in results:
            self.base.ggml_build_forward_expand(graph, result)
        buffers = self._repacked() if repack else []
        if repack and not buffers:
            raise PeerMissing("this ggml repacks nothing for this processor")
        allocated = (
            self.base.ggml_backend_alloc_ctx_tensors_from_buft(weights_context, buffers[0])
            if repack
            else self.base.ggml_backend_alloc_ctx_tensors(weights_context, self.backend)
        )
        if not allocated or not self.base.ggml_backend_alloc_ctx_tensors(context, self.backend):
            raise PeerMissing(f"ggml cannot hold {kind} weights" + " repacked" * repack)
        for tensor, matrix in zip(held, weights, strict=True):
            matrix = np.ascontiguousarray(matrix, np.float32)
            size = self.base.ggml_row_size(number, channels) * len(matrix)
            quantised = np.zeros(size, np.uint8)
            self.base.ggml_quantize_chunk(
                number, matrix.ctypes.data, quantised.ctypes.data, 0, len(matrix), channels, None
            )
            self.base.ggml_backend_tensor_set(tensor, quantised.ctypes.data, 0, size)
        x = np.ascontiguousarray(x, np.float32)
        self.base.ggml_backend_tensor_set(source, x.ctypes.data, 0, x.nbytes)
        outputs = len(weights[-1])  # the floats themselves are not kept
        compute, backend = self.base.ggml_backend_graph_compute, self.backend

        def run() -> object:
            return compute(backend, graph)

        def read() -> np.ndarray:
            out = np.zeros((rows, outputs), np.float32)
            self.base.ggml_backend_tensor_get(results[-1], out.ctypes.data, 0, out.nbytes)
            return out

        return run, read


def nbits_products(
    codes: list[np.ndarray],
    scales: list[np.ndarray],
    x: np.ndarray,
    *,
    bits: int,
    group: int,
    threads: int = 1,
    tables: bool = False,
) -> tuple[Run, Callable[[], np.ndarray]]:
    """Return a call of a chain of ``MatMulNBits`` in ONNX Runtime, and one that reads the last.

    Args:
        codes: fields (outputs, channels) each, zero at ``2**(bits - 1)``.
        scales: (outputs, groups) each.
        x: float32 (rows, channels), the input of every product.
        bits, group: 2 or 4 bits.
        threads: of the session.
        tables: its products by tables (``mlas.use_lut_gemm``).
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    from supernet.onnx.weight_only import nbits_blob

    nodes, constants, outputs = [], [], []
    for i, (fields, scale) in enumerate(zip(codes, scales, strict=True)):
        count, channels = fields.shape
        constants += [
            numpy_helper.from_array(nbits_blob(fields, bits, group), f"b{i}"),
            numpy_helper.from_array(np.ascontiguousarray(scale, np.float32), f"s{i}"),
        ]
        nodes.append(
            helper.make_node(
                "MatMulNBits", ["x", f"b{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft",
                K=channels, N=count, bits=bits, block_size=group, accuracy_level=4,
            )
        )  # fmt: skip
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [len(x), count]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))]
    graph = helper.make_graph(nodes, "products", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if tables:
        options.add_session_config_entry("mlas.use_lut_gemm", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ascontiguousarray(x, np.float32))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return (
        lambda: session.run_with_iobinding(binding),
        lambda: binding.copy_outputs_to_cpu()[-1],
    )
