"""Batch norm over the clips of all processes, so that two see what one with their clips would.

Torch's own (``SyncBatchNorm``) works on GPUs only.
"""

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Batch norm of [batch, channels, ...] whose batch is that of all processes, of equal sizes."""

    kind: type[_BatchNorm]
    """What the module is in a single process."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        ranks = dist.get_world_size()
        x = input.float()
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        mean = all_reduce(x.mean(dims)) / ranks
        x = x - mean.view(shape)
        variance = all_reduce(x.square().mean(dims)) / ranks
        with torch.no_grad():
            count = ranks * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        x = x * torch.rsqrt(variance + self.eps).view(shape)
        x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected [batch, channels, ...], got {input.ndim} dimensions")


class ShareBatchNorms(LayerSync):
    """Tells the trainer how batch norms work while several processes train."""

    def apply(self, model: nn.Module) -> nn.Module:
        # The same objects, so that names, optimizers and hooks hold.
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                object.__setattr__(module, "kind", type(module))
                module.__class__ = SharedBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, SharedBatchNorm):
                object.__setattr__(module, "__class__", module.kind)
        return model
