"""How many threads this process computes with, in every library that has threads of its own."""

from __future__ import annotations


def set_threads(threads: int | None) -> int:
    """Let torch and the linear algebra of NumPy and SciPy compute with ``threads`` threads.

    The order of a sum depends on how many threads share it, in torch as in OpenBLAS; where only
    one of them is told, two machines of one job choose different candidates, and so may a run
    that is resumed.

    Args:
        threads: None takes torch's own choice, for all of them.

    Returns:
        the number that is used now.
    """
    import scipy.linalg  # noqa: F401  a library is limited only once it is loaded
    import torch
    from threadpoolctl import threadpool_limits

    if threads is not None:
        torch.set_num_threads(threads)
    found = int(torch.get_num_threads())
    threadpool_limits(found, user_api="blas")
    return found
