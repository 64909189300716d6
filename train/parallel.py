"""How the work is spread: processes, devices, sharded parameters, recomputation, compilation.

Without ``torchrun`` a process is a world of one, so one GPU, many nodes and a CPU run the same code.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from kit.config import ConfigError
from model.transformer import UniTalking
from train.config import ParallelConfig
from train.sequence import use_sequence_parallel

ATTENTION = tuple(
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
)
GRAPHS = 128  # six tasks, two modes, and as many shapes as a recipe has buckets


@dataclass(frozen=True)
class World:
    """This process among all of them.

    Attributes:
        mesh: (replicate, shard) over all ranks; parameters are sharded along the second.
        data_rank, data_size: which part of every batch this rank reads, of how many; ranks of one sequence group read
            the same.
        sequence_group: the ranks that share this one's samples, None if it has its own.
        store: where all ranks met, None for one that is alone.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    data_rank: int
    data_size: int
    sequence_group: dist.ProcessGroup | None
    store: dist.Store | None

    @property
    def replicate(self) -> int:
        return self.mesh.size(0)

    @property
    def first(self) -> bool:
        return self.rank == 0


def start_world(config: ParallelConfig, *, stall_s: float) -> World:
    """Join the processes that ``torchrun`` started, or be alone.

    Args:
        stall_s: after which :mod:`train.watch` reports a rank; collectives give up later than that.

    Raises:
        ConfigError: a device that is not there, or groups that do not divide the number of processes.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    name = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        place = int(os.environ.get("LOCAL_RANK", 0))
        if place >= torch.cuda.device_count():
            raise ConfigError(f"process {place} of this machine has no GPU: it has {torch.cuda.device_count()}")
        torch.cuda.set_device(place)
        device = torch.device("cuda", torch.cuda.current_device())
    elif name == "cpu":
        device = torch.device("cpu")
    else:
        raise ConfigError(f"parallel.device: {name!r} cannot be used here (--set parallel.device=cpu trains without)")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timedelta(seconds=2 * stall_s))
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    size, rank = dist.get_world_size(), dist.get_rank()
    if size % (config.replicate * config.sequence):
        raise ConfigError(
            f"parallel: replicate {config.replicate} times sequence {config.sequence} do not divide {size} processes"
        )
    mesh = init_device_mesh(
        device.type, (config.replicate, size // config.replicate), mesh_dim_names=("replicate", "shard")
    )
    group = store = None
    if size > 1:  # a connection of its own: the group's is busy while a collective forms
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), wait_for_workers=False)
    if config.sequence > 1:
        grid = init_device_mesh(
            device.type, (size // config.sequence, config.sequence), mesh_dim_names=("data", "sequence")
        )
        group = grid["sequence"].get_group()
    return World(rank, size, device, mesh, rank // config.sequence, size // config.sequence, group, store)


def parallelise(model: UniTalking, config: ParallelConfig, world: World) -> UniTalking:
    """Recompute, compile and shard the blocks as asked; parameters may be on the meta device still.

    A world of one in float32 is left unsharded: there is nothing to gather or to convert.

    Raises:
        ValueError: a size of sequence groups that does not divide the heads.
    """
    for block in model.blocks:
        if config.checkpointing != "none":
            contexts = {"context_fn": _keep_attention} if config.checkpointing == "selective" else {}
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, **contexts)
        if config.compile:
            # one graph a task, a shape and a mode (training, validation); past the limit, blocks run uncompiled
            torch._dynamo.config.recompile_limit = GRAPHS
            block.forward = torch.compile(block.forward, dynamic=False)
    if world.sequence_group:
        use_sequence_parallel(model, world.sequence_group)
    if world.size == 1 and config.dtype == "float32":
        return model
    # blocks end in a flatten, and nothing writes into their outputs
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    policy = MixedPrecisionPolicy(
        param_dtype=getattr(torch, config.dtype), reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    mesh = world.mesh if config.replicate > 1 else world.mesh["shard"]
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def reduce_over_replicas(model: nn.Module, reduce: bool) -> None:
    """Whether the next backward pass adds up gradients over HSDP's replicas; the last one of a step must.

    Over the ranks that share a copy every pass does: what is left to add up would be held whole by each of them, which
    is more than all that they share.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(reduce)


def reshard(model: nn.Module) -> None:
    """Give back what a pass without a backward pass left gathered.

    FSDP2 keeps the root's parameters gathered after a forward pass; until they are given back, ``named_parameters``
    are those copies, in the dtype of the computation, and the next pass computes with them whatever the masters are.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _keep_attention():
    """Selective checkpointing: what attention made is kept, for it costs most to make; the rest is recomputed."""

    def policy(context, op, *args, **kwargs) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if op in ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
