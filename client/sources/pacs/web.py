"""HTTP to an archive: credentials, certificates, and the meaning of errors.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from client.errors import ArchiveRefused, SiteMisconfigured
from client.sources.pacs.retry import Temporary
from client.sources.pacs.spool import InstanceMissing, MissingReason
from client.sources.secrets import owned, read_secret
from client.sources.settings import DicomwebSource

_MAY_PASS = {408, 425, 429} | set(range(500, 600))
_GONE = {404, 410}
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What OpenSSL calls an answer that is no TLS, in its releases."""


def session_for(source: DicomwebSource) -> requests.Session:
    """A session with the source's credentials and certificates.

    The environment is not listened to: a ``.netrc`` would replace the token, and ``REQUESTS_CA_BUNDLE`` the authority.

    Raises:
        SiteMisconfigured: a secret is missing or readable by others, or a certificate file is missing.
    """
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0  # a redirect could carry the request to another machine, or out of TLS
    if source.token is not None:
        read_secret(source.token)
        session.auth = _Bearer(source)
    elif source.user is not None and source.password is not None:
        session.auth = HTTPBasicAuth(source.user.encode(), read_secret(source.password).encode())
    session.verify = True
    if source.authority is not None:
        session.verify = str(_there(source.authority))
    if source.certificate is not None and source.certificate_key is not None:
        session.cert = (str(_there(source.certificate)), str(owned(source.certificate_key)))
    return session


def _there(path: Path) -> Path:
    if not path.is_file():
        raise SiteMisconfigured(f"the certificate file {path} is missing")
    return path


class _Bearer(AuthBase):
    """Adds the token (RFC 6750), read again for each request: tokens are short-lived, and the file may be renewed."""

    def __init__(self, source: DicomwebSource) -> None:
        self._path = source.token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert self._path is not None
        request.headers["Authorization"] = f"Bearer {read_secret(self._path)}"
        return request


@contextmanager
def named(url: str) -> Iterator[None]:
    """Translate exceptions of ``requests`` into ours.

    Raises:
        Temporary: no connection, silence, a cut answer, 408, 425, 429 or 5xx.
        Refused: one resource cannot be had.
        ArchiveRefused: 401, 403, an untrusted certificate, a redirect.
    """
    try:
        yield
    except requests.HTTPError as error:
        raise _by_status(error.response, url) from error
    except requests.exceptions.SSLError as error:
        if "EOF" in str(error):  # the archive went away in the middle of the handshake
            raise Temporary(_short(error)) from error
        if any(word in str(error) for word in _NO_TLS):
            raise ArchiveRefused(
                f"{url} does not speak TLS at this port ({_short(error)}): set `url` to the address with its TLS port; "
                "or, if the network itself is encrypted, to http:// with `insecure_http: true`"
            ) from error
        raise ArchiveRefused(
            f"{url}: TLS failed ({_short(error)}); set `authority` to the archive's certificate authority, and "
            "`certificate` with `certificate_key` if it requires one; verification is never disabled"
        ) from error
    except requests.TooManyRedirects as error:
        raise ArchiveRefused(f"{url} redirects to another address; set `url` to the final address") from error
    except requests.exceptions.JSONDecodeError as error:
        raise InstanceMissing(MissingReason.ARCHIVE_FAILED, f"the response of {url} is not JSON") from error
    except requests.ConnectionError as error:
        plain = url.startswith("http:") and not isinstance(error, requests.Timeout)
        raise Temporary(_short(error) + ("; does it require https?" if plain else "")) from error
    except requests.RequestException as error:
        raise Temporary(_short(error)) from error


def _by_status(response: requests.Response | None, url: str) -> Exception:
    if response is None:
        return Temporary("no answer")
    status = response.status_code
    if status == 401:
        return ArchiveRefused(f"{url} responds 401 (not authenticated); check `token`, or `user` and `password`")
    if status == 403:
        return ArchiveRefused(f"{url} responds 403 (forbidden); ask its administrator for read access")
    if status == 400 and url.startswith("http:") and "https" in response.text[:4096].lower():
        return ArchiveRefused(f"{url} requires https at this port (HTTP 400); set `url` to https://")
    if status in _MAY_PASS:
        return Temporary(f"HTTP {status}", _seconds(response.headers.get("Retry-After", "")))
    return InstanceMissing(
        MissingReason.GONE_FROM_ARCHIVE if status in _GONE else MissingReason.ARCHIVE_FAILED, f"HTTP {status}"
    )


def _seconds(text: str) -> float:
    return float(min(int(text), 600)) if text.isdecimal() else 0


def _short(error: Exception) -> str:
    """Only the kind of error: its text repeats the address with the whole query."""
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", None)
    return type(error).__name__ + (f" ({type(reason).__name__})" if reason is not None else "")
