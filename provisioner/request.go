package provisioner

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/freearea/freearea/applets"
	"github.com/freearea/freearea/delegation"
	"github.com/freearea/freearea/globalplatform/capfile"
	"github.com/freearea/freearea/manifest"
)

// PlanRequest finds out which operations on this card will take a token when
// the service is issued to it, whoever its holder is: no consent is needed yet,
// and nothing is written. It returns none where no tokens are needed.
func (p *Provisioner) PlanRequest(ctx context.Context, s *Session, m *manifest.Manifest, file *capfile.File) (*Plan, error) {
	profile, ok := m.LookupProfile(p.Profiles)
	if !ok {
		return nil, fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
	if got := file.Hash(); got != [sha256.Size]byte(m.LoadFile.SHA256) {
		return nil, fmt.Errorf("%w: load file data block has SHA-256 %x, the manifest says %v", ErrLoadFileHash, got, m.LoadFile.SHA256)
	}
	where, err := p.place(m)
	if err != nil {
		return nil, err
	}
	if err := p.usable(ctx, s, where); err != nil {
		return nil, err
	}
	d := &Desired{Manifest: m, Profile: profile, LoadFile: file, spec: m.InstallSpec(), where: where}
	plan := &Plan{
		Purpose: Issue, Service: m.ID, Instance: m.Application.Instance, card: s.CardRef, loadFile: m.Application.Package,
		where: where, delegated: p.delegated(s, where),
	}
	if err := p.planLoad(s, d, plan); err != nil {
		return nil, err
	}
	_, err = p.planInstall(ctx, s, d, plan)
	return plan, err
}

// CheckRequest is what a card's operator holds a request against before it is
// answered: the service's manifest and the operations that it can lead to. The
// error is a [*delegation.MismatchError] with the field's name.
func CheckRequest(r *delegation.Request, m *manifest.Manifest, profiles applets.Profiles) error {
	profile, ok := m.LookupProfile(profiles)
	if !ok {
		return fmt.Errorf("profile %q is not known to this program", m.Profile)
	}
	digest, app := m.Digest(), m.Application
	if err := r.Check("", delegation.Facts{Service: m.ID, Manifest: digest[:]}); err != nil {
		return err
	}
	for i, o := range r.Operations {
		want := delegation.Operation{Kind: o.Kind}
		switch o.Kind {
		case delegation.Load:
			want.LoadFile, want.SecurityDomain, want.Hash = app.Package, r.SecurityDomain, m.LoadFile.SHA256[:]
		case delegation.Install:
			spec := m.InstallSpec()
			if profile.Traits().MutualAuthentication {
				if len(o.Data) != len(spec.DiversificationData) {
					return fmt.Errorf("%w: operations[%d].diversification_data is of %d bytes", delegation.ErrMalformed, i, len(o.Data))
				}
				spec.DiversificationData, want.Data = [10]byte(o.Data), o.Data
			}
			parameters, err := profile.InstallParameters(spec)
			if err != nil {
				return fmt.Errorf("operations[%d]: %w", i, err)
			}
			want.LoadFile, want.Module, want.Instance, want.Parameters = app.Package, app.Module, app.Instance, parameters
		case delegation.Extradite:
			want.Object, want.SecurityDomain = app.Instance, app.SecurityDomain
			if want.SecurityDomain.IsZero() {
				want.SecurityDomain = o.SecurityDomain // the provider's own affair
			}
		case delegation.Delete:
			want.Object = app.Instance
			if o.Object == app.Package {
				want.Object = app.Package
			}
		}
		if err := o.Check(fmt.Sprintf("operations[%d]", i), want); err != nil {
			return err
		}
	}
	return nil
}
