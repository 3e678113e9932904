import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ingestd.domain.errors import Invalid
from ingestd.domain.import_key import fingerprint, parse_public_key


def line(private, comment="jane@example.org"):
    return f"{private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {comment}\n"


def private_text(private):
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def refusal(text):
    with pytest.raises(Invalid) as caught:
        parse_public_key(text)
    assert caught.value.code == "public_key_invalid"
    return caught.value.detail


ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.rule("S82")
@pytest.mark.parametrize(
    "private",
    [
        ED25519, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 3072),
    ],
    ids=["ed25519", "p256", "p521", "rsa"],
)  # fmt: skip
def test_a_strong_public_key_is_read_and_its_comment_forgotten(private):
    key = parse_public_key(line(private))
    assert f"{key.line} jane@example.org\n" == line(private)
    assert key.fingerprint == fingerprint(base64.b64decode(key.blob))
    assert parse_public_key(f"\n  {key.line}  \n") == key


@pytest.mark.rule("S82")
def test_a_fingerprint_reads_as_openssh_shows_it():
    blob = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
    assert fingerprint(blob) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.mark.rule("S82")
@pytest.mark.threat("T33")
def test_a_private_key_is_refused_and_never_repeated():
    detail = refusal(private_text(ED25519))
    assert detail.startswith("This is a private key.")
    assert private_text(ED25519).splitlines()[1] not in detail


@pytest.mark.rule("S82")
@pytest.mark.threat("T33")
def test_weak_and_foreign_keys_are_refused():
    assert "3072 to 8192 bits; this one has 2048" in refusal(line(rsa.generate_private_key(65537, 2048)))
    assert "exponent" in refusal(line(rsa.generate_private_key(3, 3072)))
    assert "begins with none of" in refusal("ssh-dss AAAAB3NzaC1kc3M=")


@pytest.mark.rule("S82")
@pytest.mark.threat("T33")
def test_what_is_not_one_plain_key_is_refused():
    good = line(ED25519)
    algorithm, blob, _ = good.split()
    assert "one line" in refusal(good + good)
    assert "one line" in refusal("")
    assert "options" in refusal(f'command="sh" {good}')
    assert "damaged" in refusal(f"{algorithm} {blob[:-8]}")
    assert "damaged" in refusal(f"{algorithm} not-base64")
    assert "damaged" in refusal(f"{algorithm} AAAA")
    assert "do not belong together" in refusal(f"ssh-rsa {blob}")
    assert "one-line form" in refusal("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    assert "longer" in refusal("x" * (16 * 1024 + 1))
