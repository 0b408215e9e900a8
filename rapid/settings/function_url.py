"""The settings of the function's URL. What they mean is imported only if there is a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rapid.settings.names import Settings

if TYPE_CHECKING:
    from lambda_protocol.function_url import UrlSettings
    from lambda_protocol.url_cors import UrlCors


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUrlConfig:
    """The function's URL."""

    settings: UrlSettings
    is_default: bool  #: whether every path that is not rapid's own is the URL's

    @classmethod
    def read(cls, env: Settings) -> FunctionUrlConfig | None:
        """Return what ``env`` says; None: the function has no URL. Raises ``ConfigError``."""
        auth_type = env.choice("RAPID_FUNCTION_URL_AUTH_TYPE", "", ("NONE", "AWS_IAM"))
        invoke_mode = env.choice(
            "RAPID_FUNCTION_URL_INVOKE_MODE", "BUFFERED", ("BUFFERED", "RESPONSE_STREAM")
        )
        cors = env.parsed("RAPID_FUNCTION_URL_CORS", None, _parse_cors)
        is_default = env.flag("RAPID_FUNCTION_URL_DEFAULT")
        if not auth_type:
            if is_default or cors is not None or env.is_asked_for("RAPID_FUNCTION_URL_INVOKE_MODE"):
                env.warn(
                    "the function has no URL: RAPID_FUNCTION_URL_AUTH_TYPE is unset; expected "
                    "NONE or AWS_IAM beside the other settings RAPID_FUNCTION_URL_*"
                )
            return None
        from lambda_protocol.function_url import UrlSettings

        return cls(
            settings=UrlSettings(auth_type=auth_type, invoke_mode=invoke_mode, cors=cors),
            is_default=is_default,
        )


def _parse_cors(text: str) -> UrlCors:
    from lambda_protocol.function_url import parse_cors

    return parse_cors(text)
