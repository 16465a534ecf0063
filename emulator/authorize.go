package emulator

import (
	"bytes"
	"slices"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// request is a content management command that may need a token.
type request struct {
	fields
	cmd       iso7816.Command
	sd        *entry // that received it
	before    []byte // of the combined form: what the token covers of its beginning
	length    int    // of the data without the token
	presented []byte // the token; empty where none came
	reference reference
}

// reference is the control reference template beside a token (tag B6, GPCS
// table 11-48).
type reference struct {
	identification, image []byte // of the Security Domain that verifies the token
	token                 []byte // identifier
}

// token reads the token, the last of the fields.
func (r *request) token() {
	r.length = len(r.cmd.Data) - len(r.rest)
	r.presented = r.long()
}

// signed is what a token is computed over (GPCS C.4): P1, P2, the length of
// the data without the token, and that data.
func (r *request) signed() []byte {
	b := append(bytes.Clone(r.before), r.cmd.P1, r.cmd.P2)
	if n := r.length; n > iso7816.MaxShortData {
		b = append(b, 0, byte(n>>8), byte(n))
	} else {
		b = append(b, byte(n))
	}
	return append(b, r.cmd.Data[:r.length]...)
}

// readReference reads template B6 out of the parameters of a command.
func (r *request) readReference(parameters []byte) error {
	objects, err := iso7816.ParseTLVs(parameters)
	if err != nil {
		return err
	}
	t, ok := iso7816.Find(objects, 0xB6)
	if !ok {
		return nil
	}
	children, err := t.Children()
	if err != nil {
		return err
	}
	for _, t := range children {
		switch t.Tag {
		case tagIIN:
			r.reference.identification = t.Value
		case tagCIN:
			r.reference.image = t.Value
		case 0x93:
			if len(t.Value) > 0x7F {
				return iso7816.ErrWrongData
			}
			r.reference.token = t.Value
		}
	}
	return nil
}

// permission is what allows one content management operation.
type permission struct {
	sd       *entry // that performs it
	verifier *entry // that verified a token; nil under Authorized Management
	least    int    // bytes of the shortest load file hash that may stand beside the token
	token    []byte // its identifier; empty where it has none
}

// covers reports whether the hash of a load file will do beside the token: one
// must be there, and be no weaker than the token (GPCS C.2).
func (p *permission) covers(hash []byte) bool { return p.verifier == nil || len(hash) >= p.least }

// authorize finds out whether a request is allowed (GPCS 9.1.3, 9.2.3). Under
// Authorized Management the owner of the Security Domain, whom this card's
// secure channels authenticate, needs no token and may not present one. Under
// Delegated Management the token is verified by the Security Domain that has
// Token Verification.
func (c *Card) authorize(r *request) (*permission, error) {
	p := &permission{sd: r.sd}
	if !r.sd.privileges.has(privDelegatedManagement) {
		if len(r.presented) > 0 {
			return nil, iso7816.ErrWrongData
		}
		return p, nil
	}
	if len(r.presented) == 0 {
		return nil, iso7816.ErrConditions
	}
	p.verifier, p.token = c.state.authority(r.sd, privTokenVerification), r.reference.token
	if p.verifier == nil {
		return nil, iso7816.ErrSecurityStatus
	}
	d := p.verifier.domain
	k, ok := d.purpose(usageToken, versionToken)
	if !ok {
		return nil, iso7816.ErrSecurityStatus
	}
	if !c.meant(d, r.reference) {
		return nil, iso7816.ErrSecurityStatus
	}
	p.least = k.leastHash()
	if !k.verify(r.signed(), r.presented) {
		return nil, iso7816.ErrSecurityStatus
	}
	if len(p.token) > 0 && slices.ContainsFunc(d.tokens, func(t []byte) bool { return bytes.Equal(t, p.token) }) {
		return nil, iso7816.ErrConditions // it was used
	}
	return p, nil
}

// meant reports whether a token is for the Security Domain that is to verify
// it.
func (c *Card) meant(d *domain, r reference) bool {
	for tag, named := range map[iso7816.Tag][]byte{tagIIN: r.identification, tagCIN: r.image} {
		if v, _ := d.object(tag); len(named) > 0 && !bytes.Equal(named, v) {
			return false
		}
	}
	return true
}

// authority returns the Security Domain with a privilege in the sub-hierarchy
// that the nearest Security Domain with Authorized Management above sd is the
// root of (GPCS 9.1.3). It is nil where there is none that can serve.
func (s *state) authority(sd *entry, q privilege) *entry {
	root := sd
	for range s.entries {
		if root.privileges.has(privAuthorizedManagement) {
			break
		}
		if root = s.associated(root); root == nil {
			return nil
		}
	}
	if !root.privileges.has(privAuthorizedManagement) {
		return nil
	}
	for _, e := range s.entries {
		if e.domain != nil && e.privileges.has(q) && s.ready(e) && (e == root || s.below(e.securityDomain, root)) {
			return e
		}
	}
	return nil
}

// confirm completes an operation, as part of the card's transaction: the
// token's identifier is used up, and where there is a receipt key the response
// carries a confirmation over the AIDs (GPCS 11.1.6, C.5). Each of them goes in
// with its length.
func (c *Card) confirm(p *permission, aids ...[]byte) ([]byte, error) {
	var covered []byte
	for _, a := range aids {
		covered = append(append(covered, byte(len(a))), a...)
	}
	return c.confirmData(p, covered)
}

func (c *Card) confirmData(p *permission, covered []byte) ([]byte, error) {
	none := []byte{0}
	if p.verifier == nil {
		return none, nil
	}
	if len(p.token) > 0 {
		if err := c.keepToken(p.verifier, p.token); err != nil {
			return nil, err
		}
	}
	issuer := c.state.authority(p.sd, privReceiptGeneration)
	if issuer == nil {
		return none, nil
	}
	d := issuer.domain
	k, ok := d.purpose(usageReceipt, versionReceipt)
	if !ok {
		return none, nil
	}
	if d.confirmations == maxConfirmations {
		return nil, iso7816.ErrConditions // 9.1.3.6: it never starts again
	}
	identification, _ := d.object(tagIIN)
	image, _ := d.object(tagCIN)
	confirmation := globalplatform.Confirmation{
		Counter: d.confirmations, CardData: append(bytes.Clone(identification), image...), TokenIdentifier: p.token,
	}
	if err := confirmation.SignReceipt(k, covered); err != nil {
		return nil, err
	}
	c.updateDomain(issuer, func(d *domain) { d.confirmations++ })
	return confirmation.Encode(), nil
}

// maxConfirmations is where the Confirmation Counter ends.
const maxConfirmations = 0xFFFF

// keepToken remembers that a token was used.
func (c *Card) keepToken(e *entry, id []byte) error {
	if !e.own {
		if err := c.reserve(objectOverhead + len(id)); err != nil {
			return err
		}
	}
	if len(e.domain.tokens) >= maxDomainTokens {
		return iso7816.ErrNoMemory
	}
	c.updateDomain(e, func(d *domain) { d.tokens = append(d.tokens, bytes.Clone(id)) })
	return nil
}

// berLV puts the length before a value as BER-TLV codes it.
func berLV(v []byte) []byte {
	return iso7816.AppendTLV(nil, 0x80, v)[1:]
}
