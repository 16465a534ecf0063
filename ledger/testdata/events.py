#!/usr/bin/env python3
"""Writes events.jsonl: the records of TestCanonicalEncoding, encoded by
Python's json module as the documentation of package ledger says."""
import base64
import datetime
import json

CARD = "00112233445566778899aabbccddeeff"
AID = "F0465245454152454101"
TAG = "7c" * 16
NEW = "0f" * 16


def b(*octets):
    return base64.b64encode(bytes(octets)).decode()


EVENTS = [
    ("consent-recorded", dict(consent="c-1", service="library", manifest="ab" * 32, method="paper",
                              given="2026-04-01T00:30:00Z", until="2026-06-30T00:30:00Z", signed=b(*b'{"signed":1}\n'))),
    ("consent-withdrawn", dict(consent="c-1", signed=b(0xFB, 0xFF))),
    ("consent-withdrawn", dict(consent="c-1")),
    ("card-bound", dict(consent="c-1", card=CARD)),
    ("run-started", dict(run="r-1", purpose="issue", service="library", card=CARD, consent="c-1", instance=AID, steps=7)),
    ("run-started", dict(run="r-2", purpose="withdraw", service="library", card=CARD, instance=AID, steps=0)),
    ("run-finished", dict(run="r-1", outcome="done")),
    ("run-finished", dict(run="r-2", outcome="failed", error="card removed")),
    ("step-intended", dict(run="r-1", step=1, name="install")),
    ("step-done", dict(run="r-1", step=1, evidence=b(1, 2, 3))),
    ("step-done", dict(run="r-1", step=2)),
    ("step-failed", dict(run="r-1", step=3, error="not enough memory on the card", status="6A84")),
    ("step-failed", dict(run="r-1", step=3, error="")),
    ("id-reserved", dict(service="library", id="L-000001", consent="c-1", run="r-1", sequence=1)),
    ("id-reserved", dict(service="library", id='図書 <&>"\\', consent="c-2")),
    ("id-reassigned", dict(service="library", id="L-000001", consent="c-3", run="r-3")),
    ("issued", dict(service="library", card=CARD, consent="c-1", run="r-1", instance=AID, id="L-000001",
                    issue_number=65535, expiry="2031-03-31", tag=TAG, key_version=127)),
    ("issued", dict(service="library", card=CARD, consent="c-1", run="r-1", instance=AID, id="L-000001",
                    issue_number=1, expiry="", tag=TAG, key_version=0)),
    ("withdrawn", dict(service="library", card=CARD, run="r-4", instance=AID, deleted=True)),
    ("authentication-failed", dict(card=CARD, target=AID, key="isd", key_version=1, run="r-1")),
    ("authentication-succeeded", dict(card=CARD, target=AID, key="isd", key_version=1)),
    ("suspended", dict(service="library", card=CARD, run="r-5")),
    ("resumed", dict(service="library", card=CARD, run="r-6")),
    ("revoked", dict(service="library", card=CARD, consent="c-1", id="L-000001", issue_number=2, cause="lost", run="r-7")),
    ("revoked", dict(service="library", card=CARD, consent="c-1", id="L-000001", issue_number=2, cause="withdrawn")),
    ("card-replaced", dict(old=CARD, card=NEW, cause="renewed")),
    ("id-carried", {"service": "library", "id": "L-000001", "from": "c-1", "consent": "c-4", "run": "r-7"}),
    ("id-carried", {"service": "library", "id": "L-000001", "from": "c-1", "consent": "c-4"}),
    ("key-kept", dict(service="library", card=CARD, run="r-8", key_version=1, until="2027-03-31")),
    ("pin-reset", dict(service="library", card=CARD, run="r-9")),
    ("handover-prepared", dict(batch="b-1", service="library", after=0, through=40, rows=2, format="csv", digest="ab" * 32)),
    ("handed-over", dict(batch="b-1", service="library", to="library-000000000040.csv")),
]
REASON = '窓口での申請 <a&b> "q" \\\n\ttab\u2028\u2029é'

with open("events.jsonl", "w", encoding="utf-8", newline="\n") as out:
    start = datetime.datetime(2026, 4, 1, 0, 30)
    for i, (kind, data) in enumerate(EVENTS):
        time = (start + datetime.timedelta(milliseconds=1500 * i)).isoformat(timespec="milliseconds") + "Z"
        record = dict(v=1, seq=i + 1, time=time, kind=kind, operator="op-7", counter="window-2",
                      reason=REASON if i == 0 else "", data=data)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        out.write(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n")
