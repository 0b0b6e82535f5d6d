"""The end of a run: the best checkpoint becomes an artefact with its threshold, rule and scores."""

import shlex
from collections.abc import Sequence

from model.artefact import Artefact, Manifest, ScoreRecord, pack
from model.instances import InstanceRule
from model.runtime import Runtime
from training.dataset import AnnotatedImage
from training.evaluate import Evaluation, evaluate, table
from training.export import export
from training.folder import RunFolder
from training.loop import Progress
from training.preparation import Prepared
from training.report import write_report
from training.settings import FitSettings
from training.validation import MOST_SETTLING, settle, spread_over


def finish(
    settings: FitSettings, folder: RunFolder, prepared: Prepared, progress: Progress
) -> None:
    """Export the best checkpoint, settle and score the exported graph, and report."""
    data = export(folder.best, settings.precision)
    folder.model.write_bytes(data)
    draft = Runtime(folder.model).manifest
    graph = data[: draft.graph_bytes]
    if prepared.settled is not None:
        folder.model.write_bytes(pack(graph, with_scores_of(draft, prepared.settled)))
        print(f"\n{folder.model} is trained on every image; its scores are those of the run before")
    else:
        evaluation = settle_and_score(folder, graph, draft, prepared.validation)
        runtime = Runtime(folder.model)
        write_report(folder, runtime, prepared.validation, evaluation, prepared.plan, progress.log)
        print(f"\n{folder.model} on {len(prepared.validation)} validation images, as it is served:")
        print(table(evaluation, [entry.name for entry in draft.classes]))
        print(f"\nreport  {folder.report}")
    print(f"serve   UNET_SERVICE_MODEL_DIR={shlex.quote(str(folder.path))} python -m service")


def settle_and_score(
    folder: RunFolder, graph: bytes, draft: Manifest, validation: Sequence[AnnotatedImage]
) -> Evaluation:
    """Write threshold, rule and scores of the exported graph beside it."""
    found = settle(Runtime(folder.model), spread_over(validation, MOST_SETTLING))
    rule = None if found.rule is None else InstanceRule.model_validate(found.rule)
    update = {"decision_threshold": found.threshold, "instances": rule}
    manifest = draft.model_copy(update=update)
    folder.model.write_bytes(pack(graph, manifest))
    evaluation = evaluate(Runtime(folder.model), validation)
    scores = ScoreRecord(images=evaluation.images, values=evaluation.as_dict())
    folder.model.write_bytes(pack(graph, manifest.model_copy(update={"scores": scores})))
    return evaluation


def with_scores_of(manifest: Manifest, settled: Artefact) -> Manifest:
    """Name the scores of the run that settled this one, and whose they are."""
    if (scores := settled.manifest.scores) is None:
        return manifest
    return manifest.model_copy(update={"scores": scores.model_copy(update={"of": settled.sha256})})
