// Command freearea issues applications to the free area of the Individual
// Number Card, reads them back, and emulates the card.
package main

import (
	"os"

	"github.com/freearea/freearea/cmd/freearea/app"
)

func main() { os.Exit(app.Main(app.Options{})) }
