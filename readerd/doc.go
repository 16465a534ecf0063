// Package readerd is the service beside a terminal: it reads every card that
// is presented, decides about it, and tells the systems that others wrote, in
// the form that each of them expects.
//
// A [Daemon] has a source of cards and any number of outputs. Each output runs
// for itself: one that hangs or fails holds up neither the cards nor the
// others. What an output is told is an [Event]: one presentation of a card, what
// became of it, and what to say to the person in front of it.
package readerd
