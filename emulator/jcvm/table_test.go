package jcvm

import (
	"strings"
	"testing"
)

// Members that the machine doesn't execute, each for one of two reasons.
var (
	// appletsOwn are for applications to implement: the machine calls them, or
	// another application does.
	appletsOwn = map[string]bool{
		"javacard/framework/PIN": true, "javacard/framework/MultiSelectable": true, "javacard/framework/AppletEvent": true,
		"org/globalplatform/Application": true, "org/globalplatform/Personalization": true,
		"org/globalplatform/Authority": true, "org/globalplatform/HTTPAdministration": true, "org/globalplatform/HTTPReportListener": true,
	}
	// outOfReach belong to objects that nothing here makes: what would make them
	// throws NO_SUCH_ALGORITHM (TestAbsent), or returns an object of another
	// class.
	outOfReach = map[string]bool{
		"javacard/security/DSAKey": true, "javacard/security/DSAPublicKey": true, "javacard/security/DSAPrivateKey": true,
		"javacard/security/DHKey": true, "javacard/security/DHPublicKey": true, "javacard/security/DHPrivateKey": true,
		"javacard/security/KoreanSEEDKey": true, "javacard/security/SignatureMessageRecovery": true,
		"javacardx/crypto/KeyEncryption": true, "org/globalplatform/SecureChannelx": true,
	}
)

// TestEveryMember walks through the whole API: every member of every class is
// executed here, or is known not to be, and why. A list that says more than is
// true fails as well.
func TestEveryMember(t *testing.T) {
	t.Parallel()
	missing := map[string]bool{}
	members := 0
	for _, p := range apiPackages {
		for _, c := range p.classes {
			for _, m := range c.methods {
				members++
				name := c.name + "." + m.signature
				implemented, exists := Supported(name)
				switch {
				case !exists:
					t.Errorf("%s is not found", name)
				case implemented:
				case name == "javacard/framework/Applet.process(Ljavacard/framework/APDU;)V":
				case appletsOwn[c.name] || outOfReach[c.name]:
					missing[c.name] = true
				default:
					t.Errorf("%s is neither implemented nor left out", name)
				}
			}
		}
	}
	for _, list := range []map[string]bool{appletsOwn, outOfReach} {
		for name := range list {
			if !missing[name] {
				t.Errorf("%s is not missing", name)
			}
		}
	}
	if members < 600 {
		t.Errorf("%d members", members)
	}
	// What an interface declares, an object of its class has.
	for _, class := range []string{"javacard/framework/OwnerPINxWithPredecrement", "org/globalplatform/SecureChannelx2"} {
		c := theAPI().classes[class]
		for _, signature := range c.tokens {
			if m := c.find(signature); m == nil || m.native == nil || !strings.HasSuffix(m.name, signature) {
				t.Errorf("%s.%s has no code", class, signature)
			}
		}
	}
}
