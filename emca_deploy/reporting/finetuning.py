"""Fine-tuning on the terminal."""

from emca_deploy.results.finetuning import FineTuned

__all__ = ["finetuning_line"]


def finetuning_line(tuned: FineTuned) -> str:
    """Return what fine-tuning changed, and whether its result is used."""
    before, after = tuned.typical_db
    limit = "" if tuned.complete else f", the limit of {tuned.budget_s:.0f} s"
    how = f"fine-tuned in {tuned.seconds:.0f} s ({tuned.steps} steps{limit}) on {tuned.images} images"
    gained = f"{before:.1f} dB before and {after:.1f} dB after, on {tuned.kept_out} other images"
    return f"{how}: {gained}; {'used' if tuned.kept else 'not better, and not used'}"
