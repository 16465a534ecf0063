// Package manifest reads service manifests and holds the policy for them.
//
// One TOML file describes a service: what it is for, who offers it and on
// which basis in law, what it records on a card, which keys and terms it
// uses. [Load] reads a file and reports every fault at once as [Faults]; a
// manifest without faults keeps every rule that docs/manifest.md lists. What
// is written for one holder, the [Subject], is held against the manifest by
// [Manifest.CheckSubject].
//
// A consent refers to a manifest by [Manifest.Digest], so any change of a
// manifest asks for new consents.
package manifest
