package ledger

import (
	"context"
	"time"
)

// ReadKeyUse counts the cards of one service that need a version of its read
// key.
type ReadKeyUse struct {
	Service string
	Newest  int // cards whose newest version it is
	// Kept is how many cards have it beside a newer one, until a day that is
	// not over, and KeptUntil the last of these days, "2030-03-31"; it is empty
	// without any.
	Kept      int
	KeptUntil string
}

// ReadKeyUse tells which services' cards need this version of their read key,
// sorted by service; one without such a card is not in it. now says, in its own
// time zone, which day it is.
//
// Cards whose issue was revoked need no key any more: nobody is to read them.
// A version that is kept counts with the issue that kept it and no longer,
// since every later one says anew what it keeps. After its day nobody counts
// on it, although it stays on the card until that is written again.
func (l *Ledger) ReadKeyUse(ctx context.Context, version byte, now time.Time) ([]ReadKeyUse, error) {
	return ask(ctx, l, func() ([]ReadKeyUse, error) {
		rows, err := l.db.QueryContext(ctx, `WITH cards AS (
				SELECT i.service, e.record ->> '$.data.key_version' = ?1 AS newest, k.record ->> '$.data.until' AS until
				FROM issues i JOIN events e ON e.seq = i.seq
				LEFT JOIN events k ON k.kind = 'key-kept' AND k.run = e.run AND k.service = e.service AND k.card = e.card
					AND k.record ->> '$.data.key_version' = ?1 AND k.record ->> '$.data.until' >= ?2
				WHERE i.ended IS NULL AND i.revoked IS NULL)
			SELECT service, sum(newest), count(until), coalesce(max(until), '') FROM cards
			WHERE newest OR until IS NOT NULL GROUP BY service ORDER BY service`, version, now.Format(time.DateOnly))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var out []ReadKeyUse
		for rows.Next() {
			var u ReadKeyUse
			if err := rows.Scan(&u.Service, &u.Newest, &u.Kept, &u.KeptUntil); err != nil {
				return nil, err
			}
			out = append(out, u)
		}
		return out, rows.Err()
	})
}
