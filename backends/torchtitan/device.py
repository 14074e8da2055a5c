"""torchtitan on a machine without an accelerator; where there is one, nothing here does anything.

torchtitan 0.3 looks for its device once, when it is imported, and takes CUDA for granted where it finds none. `prepare`
is therefore called before torchtitan is imported.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import torch
import torch.distributed
import torch.distributed.distributed_c10d as c10d


def prepare() -> str:
    """Make torchtitan run on this machine's device, and return its type, such as ``cuda`` or ``cpu``."""
    if not hasattr(
        torch.distributed, "set_timeout"
    ):  # torch before 2.14, which torchtitan 0.3 nearly runs on
        torch.distributed.set_timeout = c10d._set_pg_timeout  # pyright: ignore
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "mps":  # torchtitan does not train on a Mac's GPU
        return accelerator.type
    import torchtitan.tools.utils as utils

    cpu = _cpu_module()
    utils.device_type, utils.device_module = "cpu", cpu
    # Some of torchtitan's modules are loaded by now and have copies.
    for name, module in list(sys.modules.items()):
        if name.startswith("torchtitan.") and getattr(module, "device_type", "cpu") != "cpu":
            module.device_type = "cpu"  # pyright: ignore
            if hasattr(module, "device_module"):
                module.device_module = cpu  # pyright: ignore
    return "cpu"


def spmd_backend() -> str:
    """Which of torchtitan's ways to shard a model this torch has."""
    return "spmd_types" if hasattr(c10d, "set_timeout") else "partial_dtensor"


def join(device: str) -> None:
    """Start the process group of a run on a single rank, which needs no port; more ranks start it by torchrun."""
    if "WORLD_SIZE" in os.environ or torch.distributed.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = torch.distributed.Backend.default_device_backend_map.get(device, "gloo")
    store = torch.distributed.HashStore()  # pyright: ignore
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)


def _cpu_module() -> ModuleType:
    """What torchtitan asks of torch.cuda, for the CPU."""
    module = ModuleType("lawkit_cpu_device")
    shared = "is_available synchronize stream current_stream Stream Event device_count set_device"
    for name in shared.split():
        setattr(module, name, getattr(torch.cpu, name))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name, function in {
        "current_device": lambda: 0,  # a number is wanted, where torch.cpu has a name
        "get_device_name": lambda device=None: "CPU",
        "get_device_properties": lambda device=None: SimpleNamespace(total_memory=memory, name="CPU"),
        "memory_stats": lambda device=None: {},
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
    }.items():
        setattr(module, name, function)
    return module
