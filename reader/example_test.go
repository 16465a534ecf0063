package reader_test

import (
	"context"
	"fmt"
	"log"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/emulator"
	"github.com/freearea/freearea/iso7816"
	"github.com/freearea/freearea/reader"
)

// A point-card terminal. The card here is emulated; package pcsc is the source
// of those in PC/SC devices.
func Example() {
	source := frontDesk()

	profile, _ := applets.Base().Lookup("common-ap")
	r, err := reader.New(reader.Options{Services: []reader.Service{
		{ID: "points", Profile: profile, Instance: iso7816.MustAID("F0465245454152454101")},
	}})
	if err != nil {
		log.Fatal(err)
	}
	for tap, err := range r.Taps(context.Background(), source) {
		fmt.Println(tap.ID, err)
		break
	}
	// Output: P-000123 <nil>
}

// frontDesk is a source with one slot, in which a point card lies.
func frontDesk() iso7816.Source {
	record := applets.Record{Service: "points", ID: "P-000123", IssueNumber: 1}
	slots := emulator.NewSlots("front desk")
	if err := slots.Insert("front desk", must(writeCard(points(record)))); err != nil {
		panic(err)
	}
	return slots
}
