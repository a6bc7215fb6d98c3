"""The PyTorch backend: checkpoints as they are, before any deployment."""

from emca_deploy.backends.backend import Backend, Package

__all__ = ["BACKEND"]

BACKEND = Backend(
    "torch",
    Package("torch", "torch", "2.9", extra="export", cuda_files="lib/*torch_cuda.*"),
    runner="emca_deploy.backends.torch.cpu:TorchRunner",
    on_gpu="emca_deploy.backends.torch.gpu:TorchGpuRunner",
    open_at_size="emca_deploy.backends.torch.gpu:open_at_size",
    variants=("eager", "channels-last", "fp16", "compiled", "compiled fp16", "compiled fp16 channels-last"),
    checkpoints=True,
)
