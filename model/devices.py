"""What may be asked for as a device, and which places that names."""

import re

FORM = re.compile(r"auto|cpu|openvino|cuda(:\d{1,3}(,\d{1,3})*)?")


def check_device(text: str) -> str:
    """Give a device back, if it is one.

    Raises:
        ValueError: if it is not.
    """
    if not FORM.fullmatch(text):
        raise ValueError(
            "a device is auto, cpu, openvino, cuda, or cuda: and numbers of GPUs, as in cuda:0,2"
        )
    return text


def places_of(device: str) -> tuple[str, ...]:
    """Name each place of a device, one worker each: `cuda:0,2` is `cuda:0` and `cuda:2`.

    `cuda` is the first GPU that CUDA shows.

    Raises:
        ValueError: if it is no device.
    """
    check_device(device)
    kind, _, numbers = device.partition(":")
    if kind != "cuda":
        return (device,)
    return tuple(f"cuda:{int(number)}" for number in (numbers or "0").split(","))
