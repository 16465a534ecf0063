package ledger

import "context"

// ReadKeyUse counts, for each service, the cards whose issue in force was
// written with this version of the service's read key as the newest. A service
// without such a card is not in it.
func (l *Ledger) ReadKeyUse(ctx context.Context, version byte) (map[string]int, error) {
	return ask(ctx, l, func() (map[string]int, error) {
		rows, err := l.db.QueryContext(ctx, `SELECT i.service, count(*) FROM issues i JOIN events e ON e.seq = i.seq
			WHERE i.ended IS NULL AND e.record ->> '$.data.key_version' = ? GROUP BY i.service`, version)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		out := map[string]int{}
		for rows.Next() {
			var service string
			var n int
			if err := rows.Scan(&service, &n); err != nil {
				return nil, err
			}
			out[service] = n
		}
		return out, rows.Err()
	})
}
