"""Certificates for the receivers of a test: an authority of its own, made by the `openssl` command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Signs certificates. Trusted only by processes with `file` in SSL_CERT_FILE."""

    def __init__(self, root: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl command to make certificates with")
        self._root = root
        root.mkdir(exist_ok=True)
        self.file = root / "ca.pem"
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=an authority of a test",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        )

    def signs(self, *names: str, days: int = 2) -> ssl.SSLContext:
        """What a server of these names speaks TLS with, such as DNS:localhost or IP:127.0.0.1."""
        self._openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "one.key",
            "-out",
            "one.csr",
            "-subj",
            "/CN=a server of a test",
        )
        (self._root / "one.ext").write_text(f"subjectAltName={','.join(names)}\n")
        self._openssl(
            "x509",
            "-req",
            "-in",
            "one.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            str(days),
            "-extfile",
            "one.ext",
            "-out",
            "one.pem",
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._root / "one.pem", self._root / "one.key")
        return context

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._root, check=True, capture_output=True)
