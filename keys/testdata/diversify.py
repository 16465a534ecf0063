"""Writes diversify.json with an implementation that is not ours: KBKDFCMAC of
pyca/cryptography, over OpenSSL's AES. The context is put together here from
the description in docs/keys.md, not from the Go code."""
import json
import sys

import cryptography
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.kbkdf import CounterLocation, KBKDFCMAC, Mode


def kcv(key):
    e = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return e.update(b"\x01" * 16)[:3]


def derive(master, purpose, kind, version, aid, data):
    context = bytes([purpose, kind, version, len(aid)]) + aid + bytes([len(data)]) + data
    return KBKDFCMAC(
        algorithm=algorithms.AES, mode=Mode.CounterMode, length=len(master), rlen=1, llen=2,
        location=CounterLocation.BeforeFixed, label=b"FREEAREA-KD1", context=context, fixed=None,
    ).derive(master)


vectors = []
for kind, size, version, aid, data in [
    ("read", 16, 1, "F0465245454152454101", "A1B2C3D4E5F60718293A"),
    ("read", 32, 127, "F000000001", "00000000000000000001"),
    ("read", 16, 2, "F00102030405060708090A0B0C0D0E0F", "FFFFFFFFFFFFFFFFFFFF"),
    ("security-domain", 16, 1, "", "0102030405060708090A"),
    ("security-domain", 24, 48, "", "0102030405060708090A"),
    ("security-domain", 32, 3, "", "0A090807060504030201"),
]:
    v = {"kind": kind, "version": version, "aid": aid, "data": data}
    for i, name in enumerate(["enc", "mac", "dek"]):
        if kind == "read" and name == "dek":
            continue
        master = bytes((0x40 + 0x10 * i + j) & 0xFF for j in range(size))
        key = derive(master, i + 1, {"security-domain": 1, "read": 2}[kind], version,
                     bytes.fromhex(aid), bytes.fromhex(data))
        v[name] = {"master": master.hex().upper(), "key": key.hex().upper(), "kcv": kcv(key).hex().upper()}
    vectors.append(v)

json.dump({
    "source": "diversify.py with pyca/cryptography %s and Python %d.%d" % (cryptography.__version__, *sys.version_info[:2]),
    "development_kcv": kcv(bytes(range(0x40, 0x50))).hex().upper(),
    "vectors": vectors,
}, open("diversify.json", "w"), indent=1)
