#!/usr/bin/env python3
"""Writes events.jsonl: the records of TestCanonicalEncoding, encoded by
Python's json and hashlib modules as the documentation of package ledger says.
The signatures are none: they have the right size."""
import base64
import datetime
import hashlib
import json

CARD = "00112233445566778899aabbccddeeff"
AID = "F0465245454152454101"
TAG = "7c" * 16
NEW = "0f" * 16


SALT = bytes(range(16))
DIGEST = "d1" * 16


def b(*octets):
    return base64.b64encode(bytes(octets)).decode()


def commit(text):
    return hashlib.sha256(SALT + text.encode()).hexdigest() if text else ""


def commit_bytes(*octets):
    return b(*hashlib.sha256(SALT + bytes(octets)).digest())


EVENTS = [
    ("consent-recorded", dict(consent="c-1", service="library", manifest="ab" * 32, method="paper",
                              given="2026-04-01T00:30:00Z", until="2026-06-30T00:30:00Z", signed=commit_bytes(*b'{"signed":1}\n'))),
    ("consent-withdrawn", dict(consent="c-1", signed=commit_bytes(0xFB, 0xFF))),
    ("consent-withdrawn", dict(consent="c-1")),
    ("card-bound", dict(consent="c-1", card=CARD)),
    ("run-started", dict(run="r-1", purpose="issue", service="library", card=CARD, consent="c-1", instance=AID, steps=7)),
    ("run-started", dict(run="r-2", purpose="withdraw", service="library", card=CARD, instance=AID, steps=0)),
    ("run-finished", dict(run="r-1", outcome="done")),
    ("run-finished", dict(run="r-2", outcome="failed", error=commit("card removed"))),
    ("step-intended", dict(run="r-1", step=1, name="install")),
    ("step-done", dict(run="r-1", step=1, evidence=commit_bytes(1, 2, 3))),
    ("step-done", dict(run="r-1", step=2)),
    ("step-failed", dict(run="r-1", step=3, error=commit("not enough memory on the card"), status="6A84")),
    ("step-failed", dict(run="r-1", step=3, error="")),
    ("id-reserved", dict(service="library", id=commit("L-000001"), consent="c-1", run="r-1", sequence=1, id_digest=DIGEST)),
    ("id-reserved", dict(service="library", id=commit('図書 <&>"\\'), consent="c-2", id_digest=DIGEST)),
    ("id-reassigned", dict(service="library", id=commit("L-000001"), consent="c-3", run="r-3", id_digest=DIGEST)),
    ("issued", dict(service="library", card=CARD, consent="c-1", run="r-1", instance=AID, id=commit("L-000001"),
                    issue_number=65535, expiry="2031-03-31", tag=TAG, key_version=127, id_digest=DIGEST)),
    ("issued", dict(service="library", card=CARD, consent="c-1", run="r-1", instance=AID, id=commit("L-000001"),
                    issue_number=1, expiry="", tag=TAG, key_version=0, id_digest=DIGEST)),
    ("withdrawn", dict(service="library", card=CARD, run="r-4", instance=AID, deleted=True)),
    ("authentication-failed", dict(card=CARD, target=AID, key="isd", key_version=1, run="r-1")),
    ("authentication-succeeded", dict(card=CARD, target=AID, key="isd", key_version=1)),
    ("suspended", dict(service="library", card=CARD, run="r-5")),
    ("resumed", dict(service="library", card=CARD, run="r-6")),
    ("revoked", dict(service="library", card=CARD, consent="c-1", id=commit("L-000001"), issue_number=2, cause="lost", run="r-7", id_digest=DIGEST)),
    ("revoked", dict(service="library", card=CARD, consent="c-1", id=commit("L-000001"), issue_number=2, cause="withdrawn", id_digest=DIGEST)),
    ("card-replaced", dict(old=CARD, card=NEW, cause="renewed")),
    ("id-carried", {"service": "library", "id": commit("L-000001"), "from": "c-1", "consent": "c-4", "run": "r-7", "id_digest": DIGEST}),
    ("id-carried", {"service": "library", "id": commit("L-000001"), "from": "c-1", "consent": "c-4", "id_digest": DIGEST}),
    ("key-kept", dict(service="library", card=CARD, run="r-8", key_version=1, until="2027-03-31")),
    ("pin-reset", dict(service="library", card=CARD, run="r-9")),
    ("handover-prepared", dict(batch="b-1", service="library", after=0, through=40, rows=2, format="csv", digest=commit("ab" * 32))),
    ("handed-over", dict(batch="b-1", service="library", to="library-000000000040.csv")),
    ("operator-added", dict(operator="op-8", role="key-custodian", key=b(*range(32)))),
    ("operator-withdrawn", dict(operator="op-8")),
    ("keys-exchanged", dict(direction="export", keys=["read/1", "issuer/2"], **{"with": "age1…"})),
    ("values-erased", dict(consent="c-1", basis="retention", events=[1, 4, 14])),
]
REASON = '窓口での申請 <a&b> "q" \\\n\ttab\u2028\u2029é'

with open("events.jsonl", "w", encoding="utf-8", newline="\n") as out:
    start = datetime.datetime(2026, 4, 1, 0, 30)
    for i, (kind, data) in enumerate(EVENTS):
        time = (start + datetime.timedelta(milliseconds=1500 * i)).isoformat(timespec="milliseconds") + "Z"
        two = kind == "keys-exchanged"
        record = dict(v=2, seq=i + 1, time=time, kind=kind, operator="op-7")
        if two:
            record["second"] = "op-8"
        record.update(counter="window-2", reason=commit(REASON) if i == 0 else "", data=data, signature=b(*[42] * 64))
        if two:
            record["countersignature"] = b(*[43] * 64)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        out.write(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n")
