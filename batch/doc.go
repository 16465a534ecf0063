// Package batch issues one service to the cards of a list, in any number of
// slots at once.
//
//	list, err := batch.Parse("members.csv", data, m, "")
//	b, err := batch.New(ctx, list, options)   // every fault of the list; no card yet
//	err = b.Run(ctx)                          // until every row is issued, or the context ends
//	report, err := b.Report(ctx)              // what came of every row
//
// Each row stands on a consent. A card is matched to a row by what the ledger
// says, then by the list: the row whose consent is bound to this card already;
// the row that names its CIN; the next row that names none, in the order in
// which the cards were presented.
//
// A batch has no state of its own beside the ledger: which rows are done, and
// which card a row belongs to, is asked there, so that a batch can be stopped,
// or be killed, and gone on with at any time, and two processes can work on one
// list. A consent is bound to one card once, in a transaction of the ledger:
// that is what keeps a row from being issued twice.
package batch
