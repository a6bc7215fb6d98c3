"""Fine-tuning of an INT8 model, the last rung of recovery. It needs PyTorch."""
