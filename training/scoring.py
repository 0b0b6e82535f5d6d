"""From a graph to an artefact: its threshold and rule settled, its scores written beside it."""

from collections.abc import Sequence
from pathlib import Path

from model.artefact import Manifest, ScoreRecord, pack
from model.instances import InstanceRule
from model.runtime import Runtime
from training.data.dataset import AnnotatedImage
from training.evaluate import Evaluation, evaluate
from training.export.computation import measure_precisions
from training.validation import MOST_SETTLING, settle, spread_over


def settle_and_score(
    path: Path, graph: bytes, draft: Manifest, validation: Sequence[AnnotatedImage]
) -> Evaluation:
    """Write an artefact of a graph, scored as the service would run it.

    Args:
        path: The file to write.
        graph: A serialised ONNX graph.
        draft: Its manifest, as far as it is known.
        validation: Images that the graph's parameters were not learnt from.
    """
    path.write_bytes(pack(graph, draft))
    found = settle(Runtime(path), spread_over(validation, MOST_SETTLING))
    rule = None if found.rule is None else InstanceRule.model_validate(found.rule)
    settled = draft.model_copy(update={"decision_threshold": found.threshold, "instances": rule})
    path.write_bytes(pack(graph, settled))
    evaluation = evaluate(Runtime(path), validation)
    scores = ScoreRecord(images=evaluation.images, values=evaluation.as_dict())
    precisions = measure_precisions(path, settled, evaluation, validation)
    update = {"scores": scores, "precisions": precisions}
    path.write_bytes(pack(graph, settled.model_copy(update=update)))
    return evaluation
