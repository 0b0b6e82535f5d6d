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
from training.run.writing import write, write_errors_explained
from training.scoring import settle_and_score
from training.settings import FitSettings


def finish(
    settings: FitSettings, folder: RunFolder, prepared: Prepared, progress: Progress
) -> None:
    """Export the best checkpoint, settle and score the exported graph, and report.

    Raises:
        CheckpointError: if the best checkpoint cannot be read, or a file not be written.
        ParityError: if the graph does not give what the network gives.
    """
    data = export(folder.best, settings.precision)
    write(folder.draft, data)
    draft = Runtime(folder.draft).manifest
    graph = data[: draft.graph_bytes]
    if prepared.settled is not None:
        write(folder.draft, pack(graph, with_scores_of(draft, prepared.settled)))
        write_report(folder, Runtime(folder.draft), (), None, prepared.plan, progress.log)
        folder.draft.replace(folder.model)
        print(f"\n{folder.model} is trained on every image; its scores are those of the run before")
    else:
        with write_errors_explained(folder.draft):
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
    """Name the scores of the run that settled this one, and whose they are.

    What a runtime may compute in goes with them: nothing is left to measure it on.
    """
    if (scores := settled.manifest.scores) is None:
        return manifest
    scores = scores.model_copy(update={"of": settled.sha256})
    update = {"scores": scores, "precisions": settled.manifest.precisions}
    return manifest.model_copy(update=update)
