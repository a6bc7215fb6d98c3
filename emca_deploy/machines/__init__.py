"""Facts about a machine: its processor, GPUs, boards and clocks. No module of this room starts a run."""
