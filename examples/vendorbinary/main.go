// Command vendorbinary is freearea with one application profile more, as a
// vendor would build it whose application can't be described by a recipe: the
// program is package app, the profile is package profile beside this one, and
// nothing of the toolkit is changed.
//
//	go run ./examples/vendorbinary manifest check my-service.toml
package main

import (
	"os"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/cmd/freearea/app"
	"github.com/freearea/freearea/examples/vendorbinary/profile"
)

func main() { os.Exit(app.Main(options())) }

// options is all that makes this another program than freearea.
func options() app.Options {
	return app.Options{Profiles: append(applets.Base(), profile.Numbered{})}
}
