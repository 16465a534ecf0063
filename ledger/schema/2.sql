-- The life of what was issued: suspended, revoked, carried to another card.
ALTER TABLE events ADD COLUMN old TEXT AS (record ->> '$.data.old') VIRTUAL;

CREATE UNIQUE INDEX replaced_once ON events (old, card) WHERE kind = 'card-replaced';
CREATE UNIQUE INDEX key_kept_once ON events (run) WHERE kind = 'key-kept';

-- Every issue, the event that ended it (a later issue of the service to the
-- same card, or its withdrawal) and the one that revoked it.
DROP VIEW issues;
CREATE VIEW issues AS
SELECT i.seq, i.time, i.service, i.card, i.consent, i.id, i.instance,
	i.record ->> '$.data.issue_number' AS issue_number,
	(SELECT min(e.seq) FROM events e WHERE e.card = i.card AND e.service = i.service
		AND e.seq > i.seq AND e.kind IN ('issued', 'withdrawn')) AS ended,
	(SELECT min(e.seq) FROM events e WHERE e.card = i.card AND e.service = i.service AND e.kind = 'revoked'
		AND e.record ->> '$.data.issue_number' = i.record ->> '$.data.issue_number') AS revoked
FROM events i
WHERE i.kind = 'issued';

-- Every ID, and the consent that has it now.
DROP VIEW ids;
CREATE VIEW ids AS
SELECT r.service, r.id, o.seq, o.consent
FROM events r
JOIN events o ON o.seq = (SELECT max(e.seq) FROM events e WHERE e.service = r.service
	AND e.id = r.id AND e.kind IN ('id-reserved', 'id-reassigned', 'id-carried'))
WHERE r.kind = 'id-reserved';

-- Every card that took another's place.
CREATE VIEW replacements AS
SELECT r.seq, r.time, r.old, r.card, r.record ->> '$.data.cause' AS cause
FROM events r
WHERE r.kind = 'card-replaced';

CREATE UNIQUE INDEX handover_once ON events (record ->> '$.data.batch', kind)
WHERE kind IN ('handover-prepared', 'handed-over');
