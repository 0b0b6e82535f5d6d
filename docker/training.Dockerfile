# Training, on an NVIDIA GPU where the host has one, built from the root of the project:
#   docker build -f docker/training.Dockerfile -t unet-training .
#   docker run --rm --gpus all -v "$PWD/data:/data:ro" -v "$PWD/runs:/runs" \
#       unet-training /data --out /runs/first

FROM python:3.11-slim-bookworm AS dependencies
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /build
# Nothing but what decides the dependencies: see service.Dockerfile. torch brings CUDA for the
# training loop; the exported file is scored by ONNX Runtime on the CPU.
COPY pyproject.toml LICENSE ./
RUN touch README.md \
    && pip install --no-cache-dir "./[cpu,training]"

FROM python:3.11-slim-bookworm
# 1000 is the first user of most hosts: what training writes into a mounted /runs is theirs.
RUN install --directory --owner=1000 --group=1000 /data /runs
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app
COPY --from=dependencies /venv /venv
COPY LICENSE ./
COPY model model
COPY training training
COPY docs/samples/membranes docs/samples/membranes
USER 1000:1000
VOLUME ["/data", "/runs"]
ENTRYPOINT ["python", "-m", "training.fit"]
CMD ["--help"]
