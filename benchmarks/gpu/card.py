"""The GPU, as its driver names it."""

import os
import subprocess

FIELDS = "name,driver_version,memory.total"


def describe_card() -> dict[str, str]:
    """Ask the driver about the first GPU that CUDA shows.

    Raises:
        OSError: if there is no driver's tool.
        CalledProcessError: if it finds no GPU.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", first, f"--query-gpu={FIELDS}", "--format=csv,noheader"]
    done = subprocess.run(  # noqa: S603 (our own command)
        command, capture_output=True, text=True, check=True
    )
    return read_card(done.stdout)


def read_card(answer: str) -> dict[str, str]:
    """Read the driver's answer."""
    name, driver, memory = (part.strip() for part in answer.splitlines()[0].split(","))
    return {"name": name, "driver": driver, "memory": memory}
