"""Keys for one run's own cluster: whoever else is logged in on the machine cannot send it code."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from studies.errors import StudyError

if TYPE_CHECKING:
    from distributed import Security

__all__ = ["temporary"]

SUBJECT = "/CN=dask-internal"  # the name that Dask's own temporary keys have


def temporary() -> Security:
    """A key pair that only this process and its workers know, for the time of the run.

    Raises:
        StudyError: neither the package cryptography nor the program openssl is here.
    """
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError:
        key, certificate = _by_openssl()
    ends = {f"tls_{role}_{part}": text for role in ("scheduler", "worker", "client") for part, text in
            (("key", key), ("cert", certificate))}  # fmt: skip
    return Security(require_encryption=True, tls_ca_file=certificate, **ends)


def _by_openssl() -> tuple[str, str]:
    """Key and self-signed certificate as PEM, where the package that Dask would use is missing."""
    with tempfile.TemporaryDirectory() as place:
        key, certificate = Path(place) / "key.pem", Path(place) / "certificate.pem"
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "365", "-subj", SUBJECT]
        command = ["openssl", "req", "-x509", *made, "-keyout", str(key), "-out", str(certificate)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            return key.read_text(), certificate.read_text()
        except FileNotFoundError as error:
            raise StudyError(
                "a local cluster needs keys of its own: run pip install cryptography, or use --workers 0."
            ) from error
