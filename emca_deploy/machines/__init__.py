"""What a machine is: its processor, GPUs, boards and clocks. Nothing here starts a run."""
