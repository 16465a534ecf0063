package keys

// AN10922 lets the note's own examples be tested, whose input no method here
// produces.
var AN10922 = an10922
