package applets

import "github.com/freearea/freearea/iso7816"

// AIDs of the base load file and its modules, from the unregistered
// proprietary range (first nibble F). Instances have AIDs of their own, which
// their service names.
var (
	BasePackage    = iso7816.MustAID("F0465245454152454100")
	ModuleCommonAP = iso7816.MustAID("F046524545415245410001")
	ModuleTypeA    = iso7816.MustAID("F04652454541524541000A")
	ModuleTypeD    = iso7816.MustAID("F04652454541524541000D")
)
