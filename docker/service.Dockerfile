# The service, built from the root of the project for an NVIDIA GPU or for the CPU:
#   docker build -f docker/service.Dockerfile -t unet-service .
#   docker build -f docker/service.Dockerfile -t unet-service:cpu --build-arg RUNTIME=cpu .
#   (RUNTIME=cpu,openvino brings OpenVINO too, 180 MB, for processors with bfloat16 or VNNI; serve
#   with UNET_SERVICE_DEVICE=auto)
#
# No CUDA base image: the extra `gpu` brings CUDA and cuDNN, and the host lends its driver.

FROM python:3.11-slim-bookworm AS dependencies
ARG RUNTIME=gpu
RUN python -m venv /venv
# ONNX Runtime reports to Microsoft from its import on, unless told not to before.
ENV PATH=/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /build
# Nothing but what decides the dependencies, so that an edit of the code or of the README (hence
# the empty one) leaves this layer as it was: 2.5 GB with RUNTIME=gpu. The import stops a build
# whose RUNTIME is misspelt, which pip answers with no more than a warning.
COPY pyproject.toml LICENSE ./
RUN touch README.md \
    && pip install --no-cache-dir "./[${RUNTIME}]" \
    && python -c "import onnxruntime"

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    UNET_SERVICE_HOST=0.0.0.0 \
    UNET_SERVICE_PORT=8000
WORKDIR /app
COPY --from=dependencies /venv /venv
COPY LICENSE ./
COPY model model
COPY service service
# A number, since Kubernetes cannot check `runAsNonRoot` against a name. It owns no file.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, since urllib would follow redirects and take the proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ['UNET_SERVICE_PORT']), timeout=4); \
service.request('GET', '/readyz'); \
sys.exit(service.getresponse().status != 200)"]
CMD ["python", "-m", "service"]
