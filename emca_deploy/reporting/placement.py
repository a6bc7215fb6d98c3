"""A measured placement on the terminal."""

from emca_deploy.results.placement import MeasuredPlacement

__all__ = ["placement_lines"]


def placement_lines(placement: MeasuredPlacement) -> list[str]:
    """Return what was measured, and which placement is used, one fact a line."""
    where = f"for {placement.backend} on {placement.target}"
    how = "reused" if placement.reused else f"measured in {placement.seconds:.0f} s"
    lines = [f"placement {where}: {placement.trials} trials, {how}"]
    if not placement.is_settled:
        return [*lines, "  no time was left for the last round: the recipe is used; give a larger --placement-budget"]
    gained, lost, per_percent = placement.gained_percent, placement.lost_db, placement.lost_db_per_percent
    if gained is None or lost is None or placement.ratio_ci95 is None:
        return [*lines, "  no change of the recipe was faster: the recipe is used"]
    best = ", ".join(f"{name}={value}" for name, value in placement.best.items())
    low, high = (100 * (end - 1) for end in placement.ratio_ci95)
    rate = f", {per_percent:.2f} dB for each percent" if per_percent is not None and lost > 0 else ""
    lines.append(f"  {best}: {gained:+.1f}% ({low:+.1f} to {high:+.1f}) faster than the recipe, {-lost:+.2f} dB{rate}")
    reason = "is used" if placement.choices else "is not shown to be worth it: the recipe is used"
    return [*lines, f"  it {reason}"]
