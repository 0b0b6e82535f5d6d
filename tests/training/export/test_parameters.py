"""Parameters: read back from an artefact as they were, and fitted to a new network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.architecture import Architecture
from model.artefact import Precision, pack
from model.errors import ArtefactDamaged, ArtefactNotFound, CheckpointError
from model.network import UNet
from model.runtime import Runtime
from tests.training.networks import drawn, manifest_for
from training.export.calibration import observe
from training.export.graph import export_graph, round_to_float16
from training.export.parameters import initialise_from, read_parameters
from training.export.quantisation import quantise

GREY = Architecture(1, 2, depth=1, base_channels=3)
COLOUR = Architecture(3, 2, depth=1, base_channels=3)
EDGE = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of grey and of colour, exported once."""
    made = tmp_path_factory.mktemp("artefacts")
    for name, architecture in (("grey", GREY), ("colour", COLOUR)):
        write(made / f"{name}.onnx", export_graph(drawn(architecture), "fp32"), architecture)
    write(made / "half.onnx", export_graph(drawn(GREY), "fp16"), GREY, "fp16")
    return made


def write(
    path: Path, graph: bytes, architecture: Architecture, precision: Precision = "fp32"
) -> Path:
    path.write_bytes(pack(graph, manifest_for(drawn(architecture), precision=precision)))
    return path


def tiles(channels: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.randn(2, channels, EDGE, EDGE, generator=random)


def answer(network: UNet, tile: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(network.eval()(tile))


def fresh(architecture: Architecture) -> UNet:
    torch.manual_seed(9)
    return UNet(architecture).eval()


def test_float32_gives_back_every_parameter_bit_for_bit(folder: Path) -> None:
    manifest, found = read_parameters(folder / "grey.onnx")
    expected = drawn(GREY).state_dict()
    assert manifest.name == "untrained"
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_float16_gives_back_what_was_rounded(folder: Path) -> None:
    _, found = read_parameters(folder / "half.onnx")
    expected = round_to_float16(drawn(GREY)).state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["grey", "half"])
def test_the_network_read_back_answers_as_the_artefact_does(folder: Path, name: str) -> None:
    network = fresh(GREY)
    network.load_state_dict(read_parameters(folder / f"{name}.onnx")[1])
    expected = Runtime(folder / f"{name}.onnx", "cpu").run(tiles().numpy())
    np.testing.assert_allclose(answer(network, tiles()), expected, atol=1e-5)


def test_biases_that_are_0_or_equal_are_read_back_all_the_same(tmp_path: Path) -> None:
    """The exporter leaves out the ones and stores the others once."""
    architecture = Architecture(depth=1, base_channels=2, variant="release")
    network = fresh(architecture)
    with torch.no_grad():
        network.get_parameter("contracting.0.0.bias").fill_(0.5)
        network.get_parameter("contracting.0.2.bias").fill_(0.5)
    path = write(tmp_path / "a.onnx", export_graph(network, "fp32"), architecture)
    _, found = read_parameters(path)
    expected = network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_parameters_rounded_to_int8_are_refused_and_others_named(tmp_path: Path) -> None:
    network = drawn(GREY)
    graph = quantise(network, observe(network, [tiles()[:1].numpy()]))
    path = write(tmp_path / "a.onnx", graph, GREY, "int8")
    with pytest.raises(CheckpointError, match=r"computes in int8.* stored as fp16 or fp32"):
        read_parameters(path)


def test_a_damaged_artefact_is_refused(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "grey.onnx").read_bytes())
    value = drawn(GREY).get_parameter("classifier.weight").detach().numpy().tobytes()
    data[data.index(value)] ^= 1
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(ArtefactDamaged):
        read_parameters(tmp_path / "a.onnx")


def test_a_missing_artefact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFound):
        read_parameters(tmp_path / "none.onnx")


def test_a_graph_without_the_parameters_of_its_manifest_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    """Ports alone would not show that it is another network."""
    deeper = Architecture(depth=2, base_channels=3)
    graph = (folder / "grey.onnx").read_bytes()[
        : read_parameters(folder / "grey.onnx")[0].graph_bytes
    ]
    path = write(tmp_path / "a.onnx", graph, deeper)
    with pytest.raises(CheckpointError, match="not made by"):
        read_parameters(path)


def test_an_equal_network_takes_every_parameter(folder: Path) -> None:
    network = fresh(GREY)
    said = initialise_from(network, folder / "grey.onnx")
    np.testing.assert_array_equal(answer(network, tiles()), answer(drawn(GREY), tiles()))
    assert said == "Parameters are those of untrained."


def test_a_grey_model_answers_a_grey_image_in_colour_as_before(folder: Path) -> None:
    network = fresh(COLOUR)
    said = initialise_from(network, folder / "grey.onnx")
    expected = answer(drawn(GREY), tiles())
    np.testing.assert_allclose(answer(network, tiles().repeat(1, 3, 1, 1)), expected, atol=1e-5)
    assert "the first layer turned from grey to colour" in said


def test_a_colour_model_answers_a_grey_image_as_before(folder: Path) -> None:
    network = fresh(GREY)
    said = initialise_from(network, folder / "colour.onnx")
    expected = answer(drawn(COLOUR), tiles().repeat(1, 3, 1, 1))
    np.testing.assert_allclose(answer(network, tiles()), expected, atol=1e-5)
    assert "from colour to grey" in said


def test_another_number_of_classes_gets_a_fresh_last_layer(folder: Path) -> None:
    network = fresh(Architecture(1, 4, depth=1, base_channels=3))
    untouched = network.classifier.weight.clone()
    said = initialise_from(network, folder / "grey.onnx")
    assert torch.equal(network.classifier.weight, untouched)
    assert torch.equal(
        network.get_parameter("expansive.0.2.weight"),
        drawn(GREY).get_parameter("expansive.0.2.weight"),
    )
    assert "but for a fresh last layer of 4 classes (its own: class-0, class-1)" in said


def test_other_names_of_classes_get_a_fresh_last_layer(folder: Path) -> None:
    network = fresh(GREY)
    untouched = network.classifier.weight.clone()
    initialise_from(network, folder / "grey.onnx", ("background", "mitosis"))
    assert torch.equal(network.classifier.weight, untouched)


def test_the_same_names_of_classes_keep_the_last_layer(folder: Path) -> None:
    network = fresh(GREY)
    initialise_from(network, folder / "grey.onnx", ("class-0", "class-1"))
    assert torch.equal(network.classifier.weight, drawn(GREY).classifier.weight)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(depth=2, base_channels=3),
        Architecture(depth=1, base_channels=4),
        Architecture(depth=1, base_channels=3, variant="release"),
    ],
    ids=str,
)
def test_another_architecture_is_refused_and_both_are_named(
    folder: Path, architecture: Architecture
) -> None:
    depth, base, variant = architecture.depth, architecture.base_channels, architecture.variant
    with pytest.raises(CheckpointError) as caught:
        initialise_from(fresh(architecture), folder / "grey.onnx")
    assert "has depth 1, 3 base channels, variant paper" in str(caught.value)
    assert f"has depth {depth}, {base} base channels, variant {variant}." in str(caught.value)


def test_channels_that_are_neither_grey_nor_colour_are_refused(folder: Path) -> None:
    network = fresh(Architecture(2, 2, depth=1, base_channels=3))
    with pytest.raises(CheckpointError, match=r"reads 1 channel\(s\), the data has 2"):
        initialise_from(network, folder / "grey.onnx")
