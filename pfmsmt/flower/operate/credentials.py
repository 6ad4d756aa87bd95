"""Credentials: a certificate for the server, and a key per site.

The certificate is signed by an authority of its own.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pfmsmt.core.errors import FederationError
from pfmsmt.core.files import new_file

YEARS = 2
"""Certificates are valid for so long."""


class Certificates(NamedTuple):
    """Files of one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate, by which sites know the server; not secret."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's own."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The server's secret."""
        return self.folder / "server.key"

    def check(self) -> None:
        """Make sure that all are there.

        Raises:
            FederationError: one is missing.
        """
        for path in (self.authority, self.certificate, self.key):
            if not path.exists():
                raise FederationError(
                    f"{path} does not exist; make certificates with `pfmsmt federate certificates --host NAME`, "
                    "or put your own there"
                )


def make_certificates(folder: Path, hosts: Sequence[str]) -> Certificates:
    """Write an authority, and a server's certificate that it signs.

    For `hosts` (names or addresses) and loopback.

    The authority's own key is forgotten: it signs this one certificate and no other.

    Raises:
        FederationError: there are certificates already.
    """
    found = Certificates(folder)
    if found.certificate.exists():
        raise FederationError(
            f"{found.certificate} exists; sites that know it would no longer connect. Move it away first"
        )
    authority_key, server_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pfmsmt federation")])
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0] if hosts else "localhost")])
    authority = (
        _certificate(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    names = [_name(host) for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"])]
    server = (
        _certificate(server_name, authority_name, server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    _write(found.authority, authority.public_bytes(serialization.Encoding.PEM))
    _write(found.key, _pem(server_key, serialization.PrivateFormat.TraditionalOpenSSL), secret=True)
    _write(found.certificate, server.public_bytes(serialization.Encoding.PEM))
    return found


def make_site_key(path: Path) -> Path:
    """Write a site's secret key to `path`, and its public key.

    The latter to `path`.pub, which is returned.

    Raises:
        FederationError: there is a key already.
    """
    public = path.with_name(f"{path.name}.pub")
    if path.exists():
        raise FederationError(f"{path} exists; a new key would have to be registered anew. Move it away first")
    key = ec.generate_private_key(ec.SECP384R1())
    _write(path, _pem(key, serialization.PrivateFormat.OpenSSH), secret=True)
    _write(public, key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))
    return public


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign, key_cert_sign=sign, crl_sign=sign, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    with new_file(path) as temporary:
        temporary.touch(0o600 if secret else 0o644)
        temporary.write_bytes(content)
        os.chmod(temporary, 0o600 if secret else 0o644)
