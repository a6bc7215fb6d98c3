"""The model card of a bundle: measured facts, and what was not measured."""

from emca_deploy.preprocessing import Preprocessing
from emca_deploy.reporting.ci import markdown_text
from emca_deploy.reporting.exchange import as_markdown
from emca_deploy.reporting.formats import fixed
from emca_deploy.reporting.table import Column, deploy_columns
from emca_deploy.results.bundle import BundleVariant
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.recommendation import recommend

__all__ = ["card_of"]


def card_of(
    name: str,
    variants: tuple[tuple[BundleVariant, float], ...],
    preprocessing: Preprocessing | None,
    licence: str | None,
    deployment: DeployReport | None,
) -> str:
    """Return the card as Markdown.

    Args:
        name: name of the model.
        variants: each artifact with its size in MiB.
        preprocessing: how an image becomes the input; None where unknown.
        licence: licence of the checkpoint; None where nobody stated it.
        deployment: measurements; None without any.
    """
    parts = [
        f"# {markdown_text(name)}\n",
        f"Licence of the checkpoint: {markdown_text(licence) if licence else 'not stated'}.\n",
        "## Artifacts\n",
        as_markdown(_variant_columns(variants)),
        "## Preprocessing\n",
        _preprocessing(preprocessing),
        "## Measurements\n",
        _measurements(deployment),
        "## Not measured\n",
        "Accuracy on other data than the validation set above, other machines, and images that differ from those of the "
        "calibration.\n"
        if deployment is not None
        else "Accuracy and latency.\n",
    ]
    return "\n".join(parts)


def _variant_columns(variants: tuple[tuple[BundleVariant, float], ...]) -> list[Column]:
    return [
        Column("artifact", tuple(each.file for each, _ in variants)),
        Column("backend", tuple(each.backend or "any" for each, _ in variants)),
        Column("precision", tuple(each.precision for each, _ in variants)),
        Column("MiB", tuple(fixed(mib, 1) for _, mib in variants)),
        Column("machine", tuple(str(each.machine.get("model") or "any") for each, _ in variants)),
    ]


def _preprocessing(preprocessing: Preprocessing | None) -> str:
    if preprocessing is None:
        return "Not known.\n"
    values = to_json(preprocessing)
    assumed = values.pop("assumed")
    table = as_markdown([Column("field", tuple(values)), Column("value", tuple(_value(value) for value in values.values()))])
    return f"{table}\nAssumed, because nobody stated them: {', '.join(assumed)}.\n" if assumed else table


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _measurements(deployment: DeployReport | None) -> str:
    if deployment is None:
        return "None: the bundle has no results of a deployment.\n"
    use = recommend(deployment).use
    chosen = [index for index, each in enumerate(deployment.candidates) if each.name == use]
    images = deployment.candidates[0].accuracy.samples
    machine = deployment.environment.get("cpu") or {}
    model = machine.get("model") if isinstance(machine, dict) else machine
    lines = [
        as_markdown(deploy_columns(deployment), chosen),
        f"{images:,} validation images; in brackets, 95 % intervals. Measured on "
        f"{markdown_text(str(model or 'an unnamed machine'))}, {markdown_text(deployment.created)}, by",
        f"\n    {deployment.command}\n",
    ]
    if deployment.warnings:
        lines.append("\n".join(f"- Warning: {markdown_text(line)}" for line in deployment.warnings) + "\n")
    return "\n".join(lines)
