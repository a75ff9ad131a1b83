"""Throw-away certificate authorities and certificates for 127.0.0.1."""

import os
import subprocess

from .processes import temporary_directory


class Authority:
    """A certificate authority of its own; `ca` is the path of its certificate."""

    def __init__(self, name="relay test CA"):
        self.directory = temporary_directory("tls")
        self.ca = os.path.join(self.directory, "ca.pem")
        self._key = os.path.join(self.directory, "ca.key")
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-keyout", self._key, "-out", self.ca, "-days", "2",
                      "-subj", f"/CN={name}",
                      # Without it the clients of Python 3.13 do not take the authority.
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certificate(self, name, subject_names="DNS:localhost,IP:127.0.0.1", days=2):
        """(certificate path, key path), valid for these names. It has expired where `days` is
        negative."""
        base = os.path.join(self.directory, name)
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-keyout", f"{base}.key", "-out", f"{base}.csr", "-subj", f"/CN={name}")
        with open(f"{base}.ext", "w") as extensions:
            extensions.write(f"subjectAltName={subject_names}\nauthorityKeyIdentifier=keyid\n")
        self._openssl("x509", "-req", "-in", f"{base}.csr", "-CA", self.ca, "-CAkey", self._key,
                      "-CAcreateserial", "-out", f"{base}.pem", "-days", str(days),
                      "-extfile", f"{base}.ext")
        os.chmod(f"{base}.key", 0o644)
        return f"{base}.pem", f"{base}.key"

    @staticmethod
    def _openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
