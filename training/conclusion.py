"""The end of a run: the best checkpoint becomes an artefact with its threshold, rule and scores."""

import shlex
import sys

from model.artefact import Artefact, Manifest, pack
from model.runtime import Runtime
from training.evaluate import table
from training.export.trained import export
from training.preparation import Prepared
from training.report import write_report
from training.run.folder import RunFolder
from training.run.progress import Progress
from training.scoring import settle_and_score
from training.settings import FitSettings


def finish(
    settings: FitSettings, folder: RunFolder, prepared: Prepared, progress: Progress
) -> None:
    """Export the best checkpoint, settle and score the exported graph, and report."""
    data = export(folder.best, settings.precision)
    folder.draft.write_bytes(data)
    draft = Runtime(folder.draft).manifest
    graph = data[: draft.graph_bytes]
    if prepared.settled is not None:
        folder.draft.write_bytes(pack(graph, with_scores_of(draft, prepared.settled)))
        folder.draft.replace(folder.model)
        print(f"\n{folder.model} is trained on every image; its scores are those of the run before")
    else:
        evaluation = settle_and_score(folder.draft, graph, draft, prepared.validation)
        runtime = Runtime(folder.draft)
        write_report(folder, runtime, prepared.validation, evaluation, prepared.plan, progress.log)
        folder.draft.replace(folder.model)
        print(f"\n{folder.model} on {len(prepared.validation)} validation images, as it is served:")
        print(table(evaluation, [entry.name for entry in draft.classes]))
        print(f"\nreport  {folder.report}")
    python, models = shlex.quote(sys.executable), shlex.quote(str(folder.path))
    print(f"serve   UNET_SERVICE_MODEL_DIR={models} {python} -m service")


def with_scores_of(manifest: Manifest, settled: Artefact) -> Manifest:
    """Name the scores of the run that settled this one, and whose they are."""
    if (scores := settled.manifest.scores) is None:
        return manifest
    return manifest.model_copy(update={"scores": scores.model_copy(update={"of": settled.sha256})})
