"""Data-parallel training with ``torchrun``: the same steps whatever the number of processes.

Every process draws the same batch and the same subnets (both follow from the seed and the
step), computes on its part of the batch, normalises by moments of the whole batch and adds
up gradients with the others once a step. ``DistributedDataParallel`` does not fit: a step
runs several subnets one after the other, each with parameters of its own, and it leaves out
gradients that were gathered for parameters the last of them does not use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from search_spaces.errors import EnvironmentProblem, InputError
from supernet.batchnorm import EPSILON, BatchNorm, BatchStatistics


@contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the processes that ``torchrun`` started; alone, do nothing.

    Uses NCCL on GPUs and gloo on processors. Each process takes the GPU of its local rank.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if not dist.is_available():
        raise EnvironmentProblem("this build of torch has no torch.distributed")
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's equal part of a batch (n, ...).

    Raises:
        InputError: the batch cannot be divided equally.
    """
    size = world_size()
    if len(tensor) % size:
        raise InputError(
            f"a batch of {len(tensor)} images cannot be divided equally among {size} processes; "
            f"choose a batch_size that is a multiple of {size}"
        )
    part = len(tensor) // size
    return tensor[rank() * part : (rank() + 1) * part]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their means over all processes.

    The processes ran the same subnets, so the same parameters have gradients everywhere.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def take_from_first(module: torch.nn.Module) -> None:
    """Set every parameter and buffer of ``module`` to what the first process holds.

    Only gradients are exchanged while training, so weights that differ at its beginning (of a
    module that draws them from a generator of its own, say) would differ for ever.
    """
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)


def average_values(values: Sequence[float]) -> list[float]:
    """Return the means over all processes."""
    if world_size() == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return (tensor / world_size()).tolist()


def batch_norm() -> BatchNorm:
    """Return the batch norm of a training step: by moments over the batches of all processes."""
    return SharedBatchStatistics() if world_size() > 1 else BatchStatistics()


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the sum over the processes."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of the gradients: each process's input is in every sum."""
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SharedBatchStatistics(BatchNorm):
    """Normalise by the moments of the batches of all processes together."""

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x`` (batch, channels, height, width); ``name`` is not used."""
        size = world_size()
        mean = _SumOverProcesses.apply(x.mean((0, 2, 3))) / size
        centred = x - mean[:, None, None]
        # In two steps: a difference of large squares would lose what small variances need.
        variance = _SumOverProcesses.apply(centred.square().mean((0, 2, 3))) / size
        scale = weight * (variance + EPSILON).rsqrt()
        return centred * scale[:, None, None] + bias[:, None, None]
