//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/miekg/pkcs11"
)

// Built reports whether this program can load PKCS#11 libraries.
const Built = true

// loaded are the libraries in use. A PKCS#11 library is initialised once per
// process and finalised for all who use it in the process, so who shares it
// must be counted for the process, too.
var loaded = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// module is a library by means of the cgo binding.
type module struct {
	*pkcs11.Ctx
	path  string
	users int
	ours  bool // initialised here, so to be finalised here
}

var _ library = (*module)(nil)

func load(path string) (library, error) {
	// Two names of one file are one library to the system's loader.
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	loaded.Lock()
	defer loaded.Unlock()
	m := loaded.byPath[resolved]
	if m == nil {
		ctx := pkcs11.New(resolved)
		if ctx == nil {
			return nil, fmt.Errorf("%w: %s is no library for this system, or no PKCS#11 library", ErrModule, path)
		}
		m = &module{Ctx: ctx, path: resolved, ours: true}
		switch err := ctx.Initialize(); {
		case errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
			m.ours = false
		case err != nil:
			ctx.Destroy()
			return nil, fmt.Errorf("%w: %s: %w", ErrModule, path, translate(err))
		}
		loaded.byPath[resolved] = m
	}
	m.users++
	return m, nil
}

func (m *module) release() {
	loaded.Lock()
	defer loaded.Unlock()
	if m.users--; m.users > 0 {
		return
	}
	delete(loaded.byPath, m.path)
	if m.ours {
		m.Finalize()
	}
	m.Destroy()
}

// translate turns the binding's error into a code.
func translate(err error) error {
	var e pkcs11.Error
	if errors.As(err, &e) {
		return code(e)
	}
	return err
}

func (m *module) info() (libraryInfo, error) {
	i, err := m.GetInfo()
	return libraryInfo{i.ManufacturerID, i.LibraryDescription, i.LibraryVersion.Major, i.LibraryVersion.Minor}, translate(err)
}

func (m *module) slots() ([]uint, error) {
	s, err := m.GetSlotList(true)
	return s, translate(err)
}

func (m *module) slotInfo(slot uint) (slotInfo, error) {
	i, err := m.GetSlotInfo(slot)
	return slotInfo{i.ManufacturerID, i.SlotDescription}, translate(err)
}

func (m *module) tokenInfo(slot uint) (tokenInfo, error) {
	i, err := m.GetTokenInfo(slot)
	return tokenInfo{i.Label, i.ManufacturerID, i.Model, i.SerialNumber, i.Flags}, translate(err)
}

func plain(mechanism uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
}

func (m *module) mechanism(slot, mechanism uint) (uint, error) {
	i, err := m.GetMechanismInfo(slot, plain(mechanism))
	if err = translate(err); errors.Is(err, ckrMechanismInvalid) {
		return 0, nil
	}
	return i.Flags, err
}

func (m *module) openSession(slot uint, write bool) (uint, error) {
	flags := uint(pkcs11.CKF_SERIAL_SESSION)
	if write {
		flags |= pkcs11.CKF_RW_SESSION
	}
	s, err := m.OpenSession(slot, flags)
	return uint(s), translate(err)
}

func (m *module) closeSession(session uint) error {
	return translate(m.CloseSession(pkcs11.SessionHandle(session)))
}

func (m *module) loggedIn(session uint) (bool, error) {
	i, err := m.GetSessionInfo(pkcs11.SessionHandle(session))
	return i.State == pkcs11.CKS_RO_USER_FUNCTIONS || i.State == pkcs11.CKS_RW_USER_FUNCTIONS, translate(err)
}

func (m *module) login(session uint, pin []byte) error {
	return translate(m.Login(pkcs11.SessionHandle(session), pkcs11.CKU_USER, string(pin)))
}

func attributes(list []attribute) []*pkcs11.Attribute {
	out := make([]*pkcs11.Attribute, len(list))
	for i, a := range list {
		out[i] = pkcs11.NewAttribute(a.typ, a.value)
	}
	return out
}

func (m *module) find(session uint, template []attribute) (found []uint, err error) {
	s := pkcs11.SessionHandle(session)
	if err := m.FindObjectsInit(s, attributes(template)); err != nil {
		return nil, translate(err)
	}
	defer func() {
		if e := m.FindObjectsFinal(s); err == nil {
			err = translate(e)
		}
	}()
	for {
		some, _, err := m.FindObjects(s, 64)
		if err != nil {
			return nil, translate(err)
		}
		if len(some) == 0 {
			return found, nil
		}
		for _, o := range some {
			found = append(found, uint(o))
		}
	}
}

func (m *module) attribute(session, object, typ uint) ([]byte, error) {
	a, err := m.GetAttributeValue(pkcs11.SessionHandle(session), pkcs11.ObjectHandle(object),
		[]*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
	if err != nil {
		return nil, translate(err)
	}
	return a[0].Value, nil
}

func (m *module) setAttribute(session, object uint, a attribute) error {
	return translate(m.SetAttributeValue(pkcs11.SessionHandle(session), pkcs11.ObjectHandle(object), attributes([]attribute{a})))
}

func (m *module) generateKey(session, mechanism uint, template []attribute) (uint, error) {
	o, err := m.GenerateKey(pkcs11.SessionHandle(session), plain(mechanism), attributes(template))
	return uint(o), translate(err)
}

func (m *module) generateKeyPair(session, mechanism uint, public, private []attribute) (uint, uint, error) {
	a, b, err := m.GenerateKeyPair(pkcs11.SessionHandle(session), plain(mechanism), attributes(public), attributes(private))
	return uint(a), uint(b), translate(err)
}

func (m *module) createObject(session uint, template []attribute) (uint, error) {
	o, err := m.CreateObject(pkcs11.SessionHandle(session), attributes(template))
	return uint(o), translate(err)
}

func (m *module) destroy(session, object uint) error {
	return translate(m.DestroyObject(pkcs11.SessionHandle(session), pkcs11.ObjectHandle(object)))
}

func (m *module) sign(session, mechanism, key uint, message []byte) ([]byte, error) {
	s := pkcs11.SessionHandle(session)
	if err := m.SignInit(s, plain(mechanism), pkcs11.ObjectHandle(key)); err != nil {
		return nil, translate(err)
	}
	out, err := m.Sign(s, message)
	return out, translate(err)
}

func (m *module) encrypt(session, mechanism, key uint, data []byte) ([]byte, error) {
	s := pkcs11.SessionHandle(session)
	if err := m.EncryptInit(s, plain(mechanism), pkcs11.ObjectHandle(key)); err != nil {
		return nil, translate(err)
	}
	out, err := m.Encrypt(s, data)
	return out, translate(err)
}
