"""What may be asked for as a device."""

import pytest

from model.devices import check_device, places_of


@pytest.mark.parametrize(
    ("device", "places"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("cuda", ("cuda:0",)),
        ("cuda:3", ("cuda:3",)),
        ("cuda:0,2", ("cuda:0", "cuda:2")),
        ("cuda:1,1", ("cuda:1", "cuda:1")),
    ],
)
def test_a_device_names_its_places(device: str, places: tuple[str, ...]) -> None:
    assert check_device(device) == device
    assert places_of(device) == places


@pytest.mark.parametrize(
    "wrong", ["", "tpu", "CPU", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "cuda:0;1", "cpu:0", "0"]
)
def test_what_is_no_device_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="a device is auto, cpu, openvino, cuda"):
        places_of(wrong)
