"""``python -m lambda_server``: the command ``lambda-server``."""

from __future__ import annotations

from lambda_server.cli import main

if __name__ == "__main__":
    main(prog_name="lambda-server")
