// Package reader reads IDs from cards: the runtime library of point-card
// terminals, doors and gates. It links no database, no PC/SC and no emulator;
// it takes one card ([iso7816.Card]) or a source of cards ([iso7816.Source]).
//
// A terminal names the services that it reads and gets a [Tap] for each card:
//
//	profile, _ := applets.Base().Lookup("common-ap")
//	r, err := reader.New(reader.Options{Services: []reader.Service{
//		{ID: "points", Profile: profile, Instance: iso7816.MustAID("F0465245454152454101")},
//	}})
//	for tap, err := range r.Taps(ctx, source) {
//		if err != nil {
//			log.Print(err)
//			continue
//		}
//		fmt.Println(tap.ID)
//	}
//
// # What a tap is worth
//
// An ID of a common-ap can be read and copied by anybody; with an issuer's key
// ([Service.IssuerKey]) it can't be invented. With types A and D the card
// proved to have the read key before a byte of its answer was used, so a copy
// of the ID is no use. [Tap.Authentication] and [Tap.Signature] say which. A
// relay between a distant card and the terminal is not prevented by any type.
//
// # What is never done
//
// An authentication is not repeated by itself, nor a PIN; a service that fails
// is not passed over for another one; a card of a weaker type than the
// service's is refused. Read keys come from a [keys.Store] for one tap and are
// erased after it. On a card shared with other programs everything happens in
// one transaction, in which the application is selected again, and nobody
// waits for a person inside it.
//
// Taps and errors have a form in JSON for programs in other languages, see
// docs/json.md.
package reader
