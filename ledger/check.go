package ledger

func (ConsentRecorded) check() error         { return nil }
func (ConsentWithdrawn) check() error        { return nil }
func (CardBound) check() error               { return nil }
func (RunStarted) check() error              { return nil }
func (RunFinished) check() error             { return nil }
func (StepIntended) check() error            { return nil }
func (StepDone) check() error                { return nil }
func (StepFailed) check() error              { return nil }
func (IDReserved) check() error              { return nil }
func (IDReassigned) check() error            { return nil }
func (Issued) check() error                  { return nil }
func (Withdrawn) check() error               { return nil }
func (AuthenticationFailed) check() error    { return nil }
func (AuthenticationSucceeded) check() error { return nil }
