"""The certificate of the WebSocket port. ACME renews it every 60 to 90 days; changed files are loaded at run time.

New connections use the new certificate; those that are open keep theirs. A file that cannot be loaded changes nothing.
"""

import os
import ssl
from pathlib import Path

from cryptography import x509

Stamp = tuple[tuple[int, ...], ...]


class Certificate:
    """Raises OSError (ssl.SSLError is one) or ValueError if the files cannot be used."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = Path(certificate), Path(key)
        self._stamp = self._read_stamp()
        self._load()

    def reload_if_changed(self) -> bool:
        """Whether changed files were loaded. Raises like the constructor, once for each change; the certificate stays
        as it was."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp  # from before the files are read, so that a change meanwhile is found by the next call
        self._load()
        return True

    def _load(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        context.load_cert_chain(certificate, key, password=lambda: "")  # an encrypted key fails instead of asking
        expires_at = x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc.timestamp()
        self.context, self.expires_at = context, expires_at  # both, or neither

    def _read_stamp(self) -> Stamp:
        """Also different after a change of permissions, and for the symbolic links that Kubernetes exchanges."""
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
