"""torchtitan's own Llama 3 at our sizes."""

from __future__ import annotations

from typing import Any

import torch.nn as nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.models.llama3 import (
    _EMBEDDING_INIT,
    _NORM_INIT,
    _build_llama3_layers,
    _output_linear_init,
    parallelize_llama,
)
from torchtitan.models.llama3.model import Llama3Model
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.tools import utils

from lawkit.backends.torchtitan.ladder import Size


def model_spec(size: Size, *, vocab_size: int, seq_len: int) -> ModelSpec:
    """Return the model of a size, in the form that torchtitan's trainer takes."""
    rope = ComplexRoPE.Config(dim=size.dim // size.n_heads, max_seq_len=seq_len, theta=500_000)
    layers = _build_llama3_layers(
        n_layers=size.n_layers,
        dim=size.dim,
        n_heads=size.n_heads,
        hidden_dim=size.hidden,
        rope=rope,
        attn_backend="flex",
    )
    for layer in layers:
        # Flex attention has no backward on a CPU. Rows attend causally over their whole length, so none is needed.
        layer.attention.inner_attention = ScaledDotProductAttention.Config()  # pyright: ignore
    config = Llama3Model.Config(
        dim=size.dim,
        vocab_size=vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab_size, embedding_dim=size.dim, param_init=_EMBEDDING_INIT
        ),
        norm=RMSNorm.Config(normalized_shape=size.dim, param_init=_NORM_INIT),
        lm_head=Linear.Config(
            in_features=size.dim, out_features=vocab_size, param_init=_output_linear_init(size.dim)
        ),
        layers=layers,
    )
    return ModelSpec(
        name="llama3",
        flavor=size.name,
        model=config,
        parallelize_fn=_parallelize,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=Llama3StateDictAdapter,
    )


def _parallelize(model: Any, **options: Any) -> nn.Module:
    model = parallelize_llama(model, **options)
    if utils.device_type == "cpu":
        # torchtitan averages gradients by a premultiplied sum, which only NCCL has.
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
    return model
