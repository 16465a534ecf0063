-- What happened is in the records, which are the leaves of the log. All other
-- columns, indexes and views are read out of them, so that none can
-- contradict them. What is erasable is not in the records but in private; the
-- records commit to it.
CREATE TABLE events (
	seq       INTEGER PRIMARY KEY CHECK (seq = record ->> '$.seq'),
	record    TEXT NOT NULL CHECK (json_valid(record)),
	time      TEXT NOT NULL AS (record ->> '$.time') VIRTUAL,
	kind      TEXT NOT NULL AS (record ->> '$.kind') VIRTUAL,
	operator  TEXT NOT NULL AS (record ->> '$.operator') VIRTUAL,
	counter   TEXT NOT NULL AS (record ->> '$.counter') VIRTUAL,
	service   TEXT AS (record ->> '$.data.service') VIRTUAL,
	card      TEXT AS (record ->> '$.data.card') VIRTUAL,
	consent   TEXT AS (record ->> '$.data.consent') VIRTUAL,
	run       TEXT AS (record ->> '$.data.run') VIRTUAL,
	id_digest TEXT AS (record ->> '$.data.id_digest') VIRTUAL,
	sequence  INTEGER AS (record ->> '$.data.sequence') VIRTUAL,
	instance  TEXT AS (record ->> '$.data.instance') VIRTUAL,
	target    TEXT AS (record ->> '$.data.target') VIRTUAL,
	person    TEXT AS (record ->> '$.data.operator') VIRTUAL,
	old       TEXT AS (record ->> '$.data.old') VIRTUAL
) STRICT;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: events are not changed'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: events are not deleted'); END;

CREATE TRIGGER events_in_order BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: events are numbered without gaps'); END;

-- The values of erasable members, and the salts of the commitments to them.
CREATE TABLE private (
	seq    INTEGER NOT NULL REFERENCES events,
	member TEXT NOT NULL,
	salt   BLOB NOT NULL CHECK (length(salt) = 16),
	value  BLOB NOT NULL,
	PRIMARY KEY (seq, member)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER private_no_update BEFORE UPDATE ON private
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: values are not changed'); END;

CREATE TRIGGER private_only_erased BEFORE DELETE ON private
WHEN NOT EXISTS (SELECT 1 FROM events e, json_each(e.record, '$.data.events') erased
	WHERE e.kind = 'values-erased' AND erased.value = OLD.seq)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: values go only with an event that says so'); END;

-- The hashes of the log's tree, by their stored index (package tlog).
CREATE TABLE hashes (
	n    INTEGER PRIMARY KEY,
	hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER hashes_no_update BEFORE UPDATE ON hashes
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: hashes are not changed'); END;

CREATE TRIGGER hashes_no_delete BEFORE DELETE ON hashes
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: hashes are not deleted'); END;

CREATE TRIGGER hashes_in_order BEFORE INSERT ON hashes
WHEN NEW.n IS NOT (SELECT coalesce(max(n) + 1, 0) FROM hashes)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: hashes are numbered without gaps'); END;

-- One row: the ledger's id, drawn when it was made, and the newest checkpoint.
CREATE TABLE log (
	only       INTEGER PRIMARY KEY CHECK (only = 1),
	id         TEXT NOT NULL,
	checkpoint TEXT NOT NULL
) STRICT;

CREATE TRIGGER log_same_id BEFORE UPDATE ON log WHEN NEW.id IS NOT OLD.id
BEGIN SELECT RAISE(ABORT, 'the ledger keeps its id'); END;

CREATE TRIGGER log_no_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the ledger keeps its id'); END;

-- An ID is reserved once per service, for ever.
CREATE UNIQUE INDEX id_once ON events (service, id_digest) WHERE kind = 'id-reserved';
CREATE UNIQUE INDEX sequence_once ON events (service, sequence) WHERE sequence IS NOT NULL;
CREATE UNIQUE INDEX consent_once ON events (consent) WHERE kind = 'consent-recorded';
CREATE UNIQUE INDEX consent_withdrawn_once ON events (consent) WHERE kind = 'consent-withdrawn';
CREATE UNIQUE INDEX consent_bound_once ON events (consent) WHERE kind = 'card-bound';
CREATE UNIQUE INDEX run_once ON events (run) WHERE kind = 'run-started';
CREATE UNIQUE INDEX run_finished_once ON events (run) WHERE kind = 'run-finished';
CREATE UNIQUE INDEX operator_once ON events (person) WHERE kind = 'operator-added';
CREATE UNIQUE INDEX operator_withdrawn_once ON events (person) WHERE kind = 'operator-withdrawn';
CREATE UNIQUE INDEX replaced_once ON events (old, card) WHERE kind = 'card-replaced';
CREATE UNIQUE INDEX key_kept_once ON events (run) WHERE kind = 'key-kept';
CREATE UNIQUE INDEX handover_once ON events (record ->> '$.data.batch', kind)
WHERE kind IN ('handover-prepared', 'handed-over');

CREATE INDEX by_service_id ON events (service, id_digest) WHERE id_digest IS NOT NULL;
CREATE INDEX by_consent ON events (consent) WHERE consent IS NOT NULL;
CREATE INDEX by_card ON events (card) WHERE card IS NOT NULL;
CREATE INDEX by_run ON events (run) WHERE run IS NOT NULL;
CREATE INDEX by_instance ON events (instance) WHERE instance IS NOT NULL;
CREATE INDEX prepared ON events (service) WHERE kind = 'handover-prepared';
CREATE INDEX handed_over ON events (service) WHERE kind = 'handed-over';
CREATE INDEX erasures ON events (seq) WHERE kind = 'values-erased';

-- A consent as it stands now.
CREATE VIEW consents AS
SELECT c.consent, c.service, c.seq, c.time AS recorded, c.operator, c.counter,
	b.card, b.time AS bound, w.time AS withdrawn
FROM events c
LEFT JOIN events b ON b.kind = 'card-bound' AND b.consent = c.consent
LEFT JOIN events w ON w.kind = 'consent-withdrawn' AND w.consent = c.consent
WHERE c.kind = 'consent-recorded';

-- Every issue, the event that ended it (a later issue of the service to the
-- same card, or its withdrawal) and the one that revoked it.
CREATE VIEW issues AS
SELECT i.seq, i.time, i.service, i.card, i.consent, i.id_digest, i.instance,
	i.record ->> '$.data.issue_number' AS issue_number,
	(SELECT min(e.seq) FROM events e WHERE e.card = i.card AND e.service = i.service
		AND e.seq > i.seq AND e.kind IN ('issued', 'withdrawn')) AS ended,
	(SELECT min(e.seq) FROM events e WHERE e.card = i.card AND e.service = i.service AND e.kind = 'revoked'
		AND e.record ->> '$.data.issue_number' = i.record ->> '$.data.issue_number') AS revoked
FROM events i
WHERE i.kind = 'issued';

-- Every ID, and the consent that has it now.
CREATE VIEW ids AS
SELECT r.service, r.id_digest, o.seq, o.consent
FROM events r
JOIN events o ON o.seq = (SELECT max(e.seq) FROM events e WHERE e.service = r.service
	AND e.id_digest = r.id_digest AND e.kind IN ('id-reserved', 'id-reassigned', 'id-carried'))
WHERE r.kind = 'id-reserved';

-- Every card that took another's place.
CREATE VIEW replacements AS
SELECT r.seq, r.time, r.old, r.card, r.record ->> '$.data.cause' AS cause
FROM events r
WHERE r.kind = 'card-replaced';

-- Every run; superseded tells that a later run of the same service on the
-- same card was done. One that locked or unlocked only says nothing of what
-- another wrote.
CREATE VIEW runs AS
SELECT s.run, s.seq, s.time, s.service, s.card,
	f.record ->> '$.data.outcome' AS outcome,
	EXISTS (SELECT 1 FROM events l JOIN events d ON d.run = l.run
		AND d.kind = 'run-finished' AND d.record ->> '$.data.outcome' = 'done'
		WHERE l.kind = 'run-started' AND l.card = s.card AND l.service = s.service
		AND (l.record ->> '$.data.purpose' NOT IN ('suspend', 'resume') OR s.record ->> '$.data.purpose' IN ('suspend', 'resume'))
		AND l.seq > s.seq) AS superseded
FROM events s
LEFT JOIN events f ON f.kind = 'run-finished' AND f.run = s.run
WHERE s.kind = 'run-started';
