"""A LitServe service around the ONNX file: `python -m benchmarks.peers.litserve_service`."""

import os

import litserve
from fastapi import Request, Response

from benchmarks.peers.solver import open_solver


class SegmentApi(litserve.LitAPI):  # type: ignore[misc]  # it is installed where it runs
    """An image in, a PNG of labels out."""

    def setup(self, device: str) -> None:  # noqa: ARG002 (its signature)
        """Open the model."""
        self.solve = open_solver()

    def decode_request(self, request: Request) -> bytes:
        """Take the file out of the form."""
        data: bytes = request["image"].file.read()  # a form arrives as what it holds
        return data

    def predict(self, x: bytes) -> bytes:
        """Segment."""
        return self.solve(x)

    def encode_response(self, output: bytes) -> Response:
        """Answer."""
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(SegmentApi(api_path="/segment"), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False)
