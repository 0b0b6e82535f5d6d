"""`python -m service`: read the settings, open the models, serve."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import CliApp

from model.errors import UNetError
from service import heap, logs
from service.decoding.pool import Decoders
from service.models.models import Models
from service.settings import Settings

if TYPE_CHECKING:
    from service.server import Server


def main() -> int:
    """Serve until a signal comes.

    Returns:
        0 after a signal; 1 if a model cannot be served; 2 if a setting is wrong; 3 if the address
        cannot be listened on, which uvicorn has logged.
    """
    logs.configure()
    try:
        settings = CliApp.run(Settings)
    except ValidationError as exc:
        for entry in exc.errors():
            name = "_".join(str(part) for part in entry["loc"]).upper()
            print(f"UNET_SERVICE_{name} is {entry['input']!r}: {entry['msg']}.", file=sys.stderr)
        return 2
    try:
        server = prepare(settings)
    except (UNetError, OSError) as exc:
        print(f"cannot serve: {exc}", file=sys.stderr)
        return 1
    heap.keep_small()  # to open models is faster without
    server.run()
    return 0 if server.started else 3


def prepare(settings: Settings) -> "Server":
    """Do at a time what takes long: start decoders, open models, import the web framework.

    Raises:
        UNetError: if a model cannot be served as the settings ask.
        OSError: if the system has no room for a process.
    """
    decoders = Decoders(settings.decode_timeout_s)
    decoders.start()
    with ThreadPoolExecutor(1) as opening:
        models = opening.submit(Models.open, settings)
        from service.app import create_app
        from service.server import Server

        return Server(create_app(settings, models.result(), decoders), settings)


if __name__ == "__main__":
    sys.exit(main())
