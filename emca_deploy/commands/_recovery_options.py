"""Options of accuracy recovery."""

import click

from emca_deploy.api.names import FINETUNE_BUDGET_S
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._types import INPUT, option

__all__ = ["checkpoint_option", "finetune_budget_option", "recover_option"]

checkpoint_option = option("--checkpoint", type=INPUT, help="Checkpoint that MODEL was exported from, for --recover finetune.")
recover_option = option(
    "--recover",
    type=click.Choice(("none", "bias", "weights", "finetune")),  # calibration.recovery.LEVELS, which is slow to import
    default="weights",
    help="Accuracy recovery: none, corrected biases, optimized rounding of weights and then corrected biases, or in addition "
    "fine-tuning, which needs PyTorch.",
)
finetune_budget_option = option(
    "--finetune-budget",
    "finetune_budget_s",
    type=DurationType(1),
    default=FINETUNE_BUDGET_S,
    help="Longest duration of --recover finetune in seconds.",
)
