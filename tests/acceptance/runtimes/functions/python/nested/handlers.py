"""A handler in a folder: awslambdaric is told ``nested/handlers.handler``."""

from behaviours import handler  # type: ignore[import-not-found]  # beside this folder

__all__ = ["handler"]
