"""Reads files of checkpoints as data: torch.save, safetensors and sharded ones; nothing in them is run."""
