"""Addresses of storage, without the secrets that they can hold."""

from __future__ import annotations

import re

__all__ = ["has_secret", "hidden"]

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s?#]*@")
_OPTION = re.compile(r"([?&][^\s=&]*(?:sig|secret|password|token|key)[^\s=&]*=)[^\s&#'\"]*", re.IGNORECASE)
_KEYS = ("s3", "gs", "gcs")
"""Where a lone name before the @ is an access key too; elsewhere it is a user or a container."""


def has_secret(address: str) -> bool:
    """Whether a URI holds a password, an access key or a token."""
    if "://" not in address:
        return False
    scheme, _, rest = address.partition("://")
    user, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if at and (":" in user or (scheme.lower() in _KEYS and user != "anonymous")):  # which stands for: no credentials
        return True
    return _OPTION.search(address) is not None


def hidden(text: str) -> str:
    """`text` with what may be a secret of the URIs in it replaced by ***."""
    return _OPTION.sub(r"\1***", _USER.sub(r"\1***@", text))
