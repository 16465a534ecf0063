// Package examples holds the example manifests: a shopping street's point card
// (common-ap), a city library's card (type-a with PIN), a company's office pass
// (type-d) and a driving record (an application of another shape). Bodies, names and notices in them are invented.
package examples

import "embed"

// Files are the manifests by file name.
//
//go:embed *.toml
var Files embed.FS
