"""Settings of the service: each is an environment variable, checked when the service starts."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.devices import check_device, places_of
from model.segmentation import DEFAULT_TILE_EDGE
from model.sessions.cuda import CudaOptions, GpuPrecision

PRETRAINED = Path(__file__).parents[1] / "model" / "pretrained"

MiB = 1 << 20


class Settings(BaseSettings):
    """Serve U-Net artefacts over HTTP. Every setting is also an environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="UNET_SERVICE_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_show_env_vars=True,
        cli_avoid_json=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    device: Annotated[str, AfterValidator(check_device)] = "auto"
    """auto, cpu, openvino, cuda, or GPUs by their numbers, as in cuda:0,2, which share all work.
    cpu is ONNX Runtime on the CPU, openvino is OpenVINO there, cuda the first GPU; openvino and
    cuda refuse to start where they do not run the models. auto takes the first GPU; else OpenVINO
    where it is installed, faster on this processor, and lost no accuracy when the model was made;
    else ONNX Runtime. Every answer says what it was."""
    gpu_precision: GpuPrecision = "fp32"
    """What GPUs compute in: fp32 is true float32, without TF32; fp16 uses their tensor cores, and
    labels may differ where two classes are nearly as likely. fp16 is refused where no GPU is."""
    tensorrt_cache: Path | None = None
    """Folder for TensorRT's engines: GPUs then run the models by TensorRT, or refuse to start."""
    model_dir: Path = PRETRAINED
    """Folder of .onnx artefacts."""
    reload_every_s: Annotated[float, Field(ge=0)] = 5.0
    """How often the folder is looked at; a file that did not change between two looks is taken. 0
    looks only when it is asked to, by POST /models/reload."""
    model_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory that open models may take on a device, as estimated from their tiles: the longest
    unused is let go, and opened again when it is asked for. 0 is half of what the container has on
    a CPU, and no bound on a GPU."""
    default_model: str = ""
    """Model of requests that name none; where this is empty, nuclei or else the first by name."""
    tile_edge: Annotated[int, Field(ge=0)] = 0
    """Largest input tile edge, in px: larger is less work for a large image, takes more memory, and
    lets whoever comes meanwhile wait longer. 0 is 892, or on a CPU less where an eighth of the
    container's memory would not do."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of one inference; 0 is one for each core that the service has: the
    least of the cores that it may run on and the CPU quotas of its control groups (a container's
    limit), rounded down, and at least 1."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 64 * MiB
    """Largest body of a request, in bytes."""
    max_image_pixels: Annotated[int, Field(ge=0)] = 0
    """Largest image, in pixels, judged from its header; of more channels than three, it counts as
    colour with as many values. 0 is 128,000,000, or less where a fourth of the container's memory
    would not do."""
    max_pending_pixels: Annotated[int, Field(ge=0)] = 0
    """Pixels of all images that are held at a time, eight times those of an image that is averaged
    over its rotations; more are asked to come again. 0 is 512,000,000, or less where a fourth of
    the container's memory would not do."""
    max_pending_requests: Annotated[int, Field(ge=1)] = 32
    """Requests that are held at a time; more are asked to come again."""
    deadline_s: Annotated[float, Field(gt=0)] = 900.0
    """Time from a request to its answer. What would take longer is refused, what does take longer
    is given up; a client that waits less long says so by the header `Prefer: wait=` and seconds."""
    stall_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """A client that sends nothing of its upload for so long is let go."""
    upload_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """A client that is not done with its upload by then is let go."""
    decode_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """An image that takes longer to decode, from its turn on, is given up."""
    shutdown_grace_s: float = Field(default=None, validate_default=True, ge=0)
    """Time to finish what is in flight after SIGTERM; where it is not set, deadline_s, by which
    everything is."""

    @field_validator("shutdown_grace_s", mode="before")
    @classmethod
    def _deadline_where_not_set(cls, value: object, info: ValidationInfo) -> object:
        return info.data.get("deadline_s", 0) if value is None else value

    @property
    def places(self) -> tuple[str, ...]:
        """Each place that runs the models."""
        return places_of(self.device)

    @property
    def cuda(self) -> CudaOptions:
        """How GPUs are used."""
        return CudaOptions(
            precision=self.gpu_precision,
            tensorrt_cache=self.tensorrt_cache,
            largest_edge=self.tile_edge or DEFAULT_TILE_EDGE,
        )
