"""Every error that this project raises on purpose, in one tree.

UNetError
├── GeometryError               a size that valid convolutions cannot have
├── ArtefactError               the served ONNX file is not what it should be
│   ├── ArtefactNotFound
│   ├── ArtefactDamaged
│   ├── ManifestMissing
│   ├── ManifestVersionError
│   ├── ManifestInvalid
│   └── ManifestMismatch
├── DeviceError                 the asked-for device does not run the model
├── ImageError                  the image cannot be segmented
│   ├── ImageMissing
│   ├── ImageEmpty
│   ├── ImageUnreadable
│   ├── ImageTypeRefused
│   ├── ImageTooLarge
│   ├── ImagePagesRefused
│   ├── ImageChannelsRefused
│   └── ImageValuesInvalid
├── RequestError                the request around the image is wrong
│   ├── UploadTooLarge
│   ├── UploadStalled
│   ├── FormInvalid
│   ├── ModelNotFound
│   ├── FormatNotAcceptable
│   ├── ObjectsTooMany
│   ├── ParameterInvalid
│   ├── PreferenceInvalid
│   └── DeadlineTooShort
├── ServiceUnavailable          the service cannot take this request now
│   ├── ServiceBusy
│   ├── ServiceNotReady
│   └── ServiceStopping
├── DeadlinePassed              the answer was not there in time
├── InferenceFailed             the runtime failed on tiles of this image
└── TrainingError               training cannot go on
    ├── DatasetError
    ├── CheckpointError
    ├── LossNotFinite
    ├── OutOfMemory
    ├── TrainingStopped
    └── ParityError

Each class has a stable `code`, which other programs may rely on. What a code means to HTTP is
written in `service/errors.py` alone.
"""

from typing import ClassVar


class UNetError(Exception):
    """Root of all errors raised on purpose."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str = "", **numbers: float) -> None:
        """Say what was found.

        Args:
            message: For a reader.
            numbers: For a program, by names that are as stable as the code and end with the unit.
        """
        super().__init__(message)
        self.numbers = numbers


class GeometryError(UNetError, ValueError):
    """A depth, tile edge or region that the network's geometry does not allow."""

    code = "geometry"


class ArtefactError(UNetError):
    """The ONNX file cannot be served."""

    code = "artefact"


class ArtefactNotFound(ArtefactError):
    """There is no file at the given path."""

    code = "artefact-not-found"


class ArtefactDamaged(ArtefactError):
    """The file is no ONNX graph, or its bytes differ from those that were exported."""

    code = "artefact-damaged"


class ManifestMissing(ArtefactError):
    """An ONNX file without the manifest that training writes into it."""

    code = "manifest-missing"


class ManifestVersionError(ArtefactError):
    """A manifest of a version that this software does not read."""

    code = "manifest-version"


class ManifestInvalid(ArtefactError):
    """A manifest whose fields do not have the documented form."""

    code = "manifest-invalid"


class ManifestMismatch(ArtefactError):
    """A graph whose inputs or outputs are not those that its manifest describes."""

    code = "manifest-mismatch"


class DeviceError(UNetError):
    """The asked-for device is not the one that would run the model."""

    code = "device-unavailable"


class ImageError(UNetError):
    """The image cannot be segmented."""

    code = "image"


class ImageMissing(ImageError):
    """The request holds no image."""

    code = "image-missing"


class ImageEmpty(ImageError):
    """The image holds no bytes."""

    code = "image-empty"


class ImageUnreadable(ImageError):
    """The bytes are no image, or a damaged one, or one in a form that is not read."""

    code = "image-unreadable"


class ImageTypeRefused(ImageError):
    """The content type is not that of an image which is read."""

    code = "image-type-refused"


class ImageTooLarge(ImageError):
    """The image has more pixels than the limit."""

    code = "image-too-large"


class ImagePagesRefused(ImageError):
    """The image has more than one page."""

    code = "image-pages-refused"


class ImageChannelsRefused(ImageError):
    """The image has channels that the model does not read."""

    code = "image-channels-refused"


class ImageValuesInvalid(ImageError):
    """The image has no pixels, or pixels that are not finite."""

    code = "image-values-invalid"


class RequestError(UNetError):
    """The request around the image is wrong."""

    code = "request"


class UploadTooLarge(RequestError):
    """The body has more bytes than the limit."""

    code = "upload-too-large"


class UploadStalled(RequestError):
    """The client stopped sending before the body was whole."""

    code = "upload-stalled"


class FormInvalid(RequestError):
    """The multipart form is malformed or holds more than it may."""

    code = "form-invalid"


class ModelNotFound(RequestError):
    """No model of that name is served."""

    code = "model-not-found"


class FormatNotAcceptable(RequestError):
    """None of the answer's formats is acceptable to the client."""

    code = "format-not-acceptable"


class ObjectsTooMany(RequestError):
    """The image has more objects than the asked-for format can number."""

    code = "objects-too-many"


class ParameterInvalid(RequestError):
    """A query parameter is unknown or has a value that it cannot have."""

    code = "parameter-invalid"


class PreferenceInvalid(RequestError):
    """The header `Prefer` has a value that it cannot have."""

    code = "preference-invalid"


class DeadlineTooShort(RequestError):
    """The image alone takes longer than the request may."""

    code = "deadline-too-short"


class ServiceUnavailable(UNetError):
    """The service cannot take this request now."""

    code = "service-unavailable"


class ServiceBusy(ServiceUnavailable):
    """There is no room, no time or no memory for this request now."""

    code = "service-busy"


class ServiceNotReady(ServiceUnavailable):
    """What the request needs is not there: a warm model, or a process that decodes images."""

    code = "service-not-ready"


class ServiceStopping(ServiceUnavailable):
    """The service finishes what it has and takes nothing new."""

    code = "service-stopping"


class DeadlinePassed(UNetError):
    """The request's deadline came before its answer."""

    code = "deadline-passed"


class InferenceFailed(UNetError):
    """The runtime failed on this image."""

    code = "inference-failed"


class TrainingError(UNetError):
    """Training cannot go on."""

    code = "training"


class DatasetError(TrainingError):
    """The annotated images cannot be read or do not fit together."""

    code = "dataset"


class CheckpointError(TrainingError):
    """A file of the run cannot be read or written, or its checkpoint belongs to another run."""

    code = "checkpoint"


class LossNotFinite(TrainingError):
    """The loss became infinite or not a number."""

    code = "loss-not-finite"


class OutOfMemory(TrainingError):
    """The run does not fit the memory."""

    code = "out-of-memory"


class TrainingStopped(TrainingError):
    """A signal, whose number it has, asked the run to stop; it can be resumed."""

    code = "training-stopped"


class ParityError(TrainingError):
    """The exported graph does not give what the network gives."""

    code = "parity"
