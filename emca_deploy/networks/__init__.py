"""The networks: attention modules, ResNets, PKCAM, their names and their checkpoints."""
