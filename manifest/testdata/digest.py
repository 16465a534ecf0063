"""Computes digest.txt from digest.toml: the canonical encoding and the digest
of a manifest, by Python 3.11 or later and nothing else.

    python3 digest.py digest.toml > digest.txt

It knows no defaults but those that it names, so digest.toml states the others.
"""
import hashlib
import json
import sys
import tomllib


def canonical(v):
    if isinstance(v, dict):
        v = {k: canonical(x) for k, x in v.items()}
        return {k: x for k, x in v.items() if x not in ("", {}, []) and x is not False and x != 0}
    if isinstance(v, list):
        return [canonical(x) for x in v]
    return v


with open(sys.argv[1], "rb") as f:
    text = json.dumps(canonical(tomllib.load(f)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
print(text)
print(hashlib.sha256(b"freearea manifest 1\n" + text.encode()).hexdigest())
