"""Writes python.keys by the description of the format in docs/keys.md, with
argon2id, ChaCha20-Poly1305, HKDF and Ed25519 of pyca/cryptography and HChaCha20 as
draft-irtf-cfrg-xchacha-03 says. The passphrase is "correct horse". Run from
this directory; the output is the same each time."""
import base64
import hashlib
import hmac
import json
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def hchacha20(key, nonce):
    s = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a, b, c, d):
        for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            t = s[z] ^ s[x]
            s[z] = (t << r | t >> (32 - r)) & 0xFFFFFFFF

    for _ in range(10):
        quarter(0, 4, 8, 12), quarter(1, 5, 9, 13), quarter(2, 6, 10, 14), quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15), quarter(1, 6, 11, 12), quarter(2, 7, 8, 13), quarter(3, 4, 9, 14)
    return struct.pack("<8I", *s[:4], *s[12:])


assert hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927")).hex() == \
    "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"  # the draft, 2.2.1


def seal(key, nonce, plain, ad):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(b"\0" * 4 + nonce[16:], plain, ad)


def expand(secret, purpose, size):
    return HKDFExpand(SHA256(), size, b"freearea keystore 1 " + purpose).derive(secret)


def b64(b):
    return base64.b64encode(b).decode()


def line(o):
    return json.dumps(o, separators=(",", ":")).encode()


def drawn(what, size):  # fixed, in the place of randomness
    return hashlib.shake_128(what.encode()).digest(size)


def kcv(key):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(b"\x01" * 16)[:3].hex().upper()


file_key = drawn("file key", 32)
h = {"freearea": "keystore", "version": 1, "kdf": "argon2id", "time": 2, "memory_kib": 64, "threads": 2,
     "salt": b64(drawn("salt", 16))}
s = Argon2id(salt=drawn("salt", 16), length=32, iterations=2, lanes=2, memory_cost=64).derive(b"correct horse")
h["check"] = b64(expand(s, b"check", 16))
nonce = drawn("header nonce", 24)
key = seal(expand(s, b"wrap", 32), nonce, file_key, b"freearea keystore 1 header\n" + line(h))
out = line(h | {"nonce": b64(nonce), "key": b64(key)}) + b"\n"

seed = bytes(range(32))
public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
sd = [drawn(k, 32) for k in ("ENC", "MAC", "DEK")]
read = [bytes(range(0x40, 0x50)), bytes(range(0x50, 0x60))]
ledger = drawn("ledger", 16)
for e, secret in [
    ({"name": "door", "kind": "read", "version": 1, "algorithm": "aes-128", "check_value": "/".join(map(kcv, read)),
      "development": True, "created": "2025-04-01T00:00:00Z"}, b"".join(read)),
    ({"name": "isd", "kind": "security-domain", "version": 48, "algorithm": "aes-256",
      "check_value": "/".join(map(kcv, sd)), "created": "2025-04-01T00:00:00Z"}, b"".join(sd)),
    ({"name": "issuer", "kind": "issuer-signing", "version": 1, "algorithm": "ed25519",
      "check_value": public[:8].hex().upper(), "public_key": b64(public), "created": "2024-02-29T23:59:59Z",
      "retired": "2025-04-01T00:00:00Z"}, seed),
    ({"name": "issuer", "kind": "issuer-signing", "version": 2, "algorithm": "ed25519",
      "check_value": public[:8].hex().upper(), "public_key": b64(public), "public_only": True,
      "created": "2025-04-01T00:00:00Z"}, b""),
    ({"name": "tags", "kind": "ledger", "version": 1, "algorithm": "aes-128", "check_value": kcv(ledger),
      "created": "2025-04-01T00:00:00Z"}, ledger),
]:
    nonce = drawn("nonce %s %d" % (e["name"], e["version"]), 24)
    sealed = seal(expand(file_key, b"entries", 32), nonce, secret, b"freearea keystore 1 entry\n" + line(e))
    out += line(e | {"nonce": b64(nonce), "sealed": b64(sealed)}) + b"\n"
out += line({"entries": 5, "generation": 7}) + b"\n"
out += line({"mac": b64(hmac.digest(expand(file_key, b"list", 32), out, "sha256"))}) + b"\n"
out += line({"sha256": b64(hashlib.sha256(out).digest())}) + b"\n"
open("python.keys", "wb").write(out)
