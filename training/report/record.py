"""What is known about a run and its file: the plan with its reasons, and the manifest."""

from collections.abc import Mapping
from html import escape

from model.intensity import IntensityRule
from model.runtime import Runtime
from training.plan import Plan

PLANNED: Mapping[str, tuple[str, str]] = {
    "tile_edge": ("tile edge", "px"),
    "batch": ("tiles a step", ""),
    "steps": ("steps", ""),
    "compute": ("arithmetic", ""),
    "intensity": ("intensity", ""),
    "border_weight": ("border weight w0", ""),
    "border_sigma": ("border width sigma", "px"),
    "ridges": ("ridges between objects that touch", ""),
    "object_share": ("tiles centred on an object", "of all"),
    "largest_zoom": ("largest zoom", "times"),
    "elastic": ("elastic deformation", ""),
}
"""What people call the values of a plan, and their units."""


def plan_table(plan: Plan) -> str:
    """Lay out the plan, one value a line, each with its reason."""
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_worded(getattr(plan, field)))} {unit}</td>"
        f"<td>{escape(reason)}</td></tr>"
        for field, reason in plan.reasons.items()
        for name, unit in [PLANNED.get(field, (field.replace("_", " "), ""))]
    )
    return (
        '<div class="wide"><table><thead><tr><th>what</th><th>value</th><th>why</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def introduction(runtime: Runtime) -> str:
    """Say in a sentence or two what was learnt from what."""
    manifest = runtime.manifest
    record = manifest.training
    classes = ", ".join(entry.name for entry in manifest.classes)
    count = len(record.training_images)
    licence = "licence unknown" if record.licence == "unknown" else record.licence
    return (
        f"A U-Net trained on {count} image{'s' * (count != 1)} of {escape(record.data)} "
        f"({escape(licence)}) with {record.label_kind} labels: {escape(classes)}."
    )


def file_facts(runtime: Runtime) -> str:
    """Say what the file is, so that it can be told from others and made again."""
    manifest = runtime.manifest
    record, architecture = manifest.training, manifest.architecture
    facts = {
        "network": f"depth {architecture.depth}, {architecture.base_channels} base channels, "
        f"{architecture.in_channels} input channel(s), {architecture.variant} variant",
        "parameters": f"of step {record.steps:,}, stored as {manifest.precision}",
        "intensity": _worded(manifest.intensity),
        "decision threshold": _worded(manifest.decision_threshold),
        "objects": "connected components"
        if manifest.instances is None
        else ", ".join(
            f"{name.replace('_', ' ')} {_worded(value)}" for name, value in manifest.instances
        ),
        "averaging": manifest.averaging,
        "pixel size": f"{manifest.pixel_size:g} µm" if manifest.pixel_size else "not told",
        "data": f"{record.data}, SHA-256 {record.data_sha256[:12]}…. {record.citation}",
        "made": f"{manifest.created}, "
        + ", ".join(f"{name} {version}" for name, version in manifest.software.items()),
        "file": f"SHA-256 {runtime.artefact.sha256}",
    }
    lines = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return f'<dl class="facts">{lines}</dl><pre>{escape(record.command)}</pre>'


def _worded(value: object) -> str:
    if isinstance(value, IntensityRule):
        image = "each channel" if value.per_channel else "the image"
        of = f"percentiles of {image}" if value.kind == "percentile" else "values"
        return f"{value.low:g} to {value.high:g}, {of}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none: the most probable class"
    return f"{value:,g}" if isinstance(value, int | float) else str(value)
