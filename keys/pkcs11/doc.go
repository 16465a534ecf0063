// Package pkcs11 keeps keys in a PKCS#11 token: a smart card, a hardware
// security module, or one in software. It is the keystore of an office.
//
// # What reaches the host
//
// Master keys stay in the token, which refuses to show them: a key that can
// be read out (CKA_SENSITIVE false or CKA_EXTRACTABLE true) is not used. What
// the token computes are AES-CMACs (CKM_AES_CMAC), signatures (CKM_EDDSA) and
// key check values (CKM_AES_ECB). From the CMACs the host puts together the
// keys of one card or one instance, because tokens know SP 800-108 rarely and
// the other methods not at all: those derived keys reach the host, and they
// open that card alone. Whoever is logged in to the token can have it derive
// keys for any card, as long as he is.
//
// [keys.MethodNone] uses the stored keys as they are and is refused with
// [keys.ErrMastersStay], whatever the key's attributes. So are
// [keys.MethodVISA2] and [keys.MethodEMV], which need triple DES.
//
// # Objects
//
// A key set has one object for each of its keys, a ledger key one, a signing
// key two (one for a public half alone). Objects of other programs are left
// alone.
//
//	CKA_LABEL        the key's name
//	CKA_ID           6 or 16 bytes: 4641 (ASCII "FA"), 01, kind, version, purpose, and both or none of
//	                 created, retired: 5 bytes each, big-endian, seconds since 1970, zeros for unknown or in use
//	                 kind     01 Security Domain, 02 read, 03 issuer signing, 04 counter signing, 05 ledger
//	                 version  01 to 7F
//	                 purpose  01 ENC, 02 MAC, 03 DEK (Security Domain only); 00 for kinds without sets
//	CKA_CLASS        CKO_SECRET_KEY; CKO_PRIVATE_KEY and CKO_PUBLIC_KEY for signing keys
//	CKA_KEY_TYPE     CKK_AES; CKK_EC_EDWARDS on the curve edwards25519
//	CKA_TOKEN        true
//	CKA_SENSITIVE    true, and CKA_EXTRACTABLE false, but for public halves
//	CKA_SIGN         true, but for public halves
//	CKA_ENCRYPT      true for AES keys, or no check value is shown
//
// Keys that others put into the token in this form are used like those made
// here. Dates stand in CKA_ID because SoftHSM2 can't read back those that
// PKCS#11 has for keys. ENC (of a set) is made last and removed first, so that what a crash
// leaves is not taken for a key; [Store.Problems] names it and [Store.Remove]
// takes it away. Programs that make keys of one name at the same time can choose
// the same version, which is then unusable: let one make keys.
//
// # The PIN
//
// It comes from Options.PIN, never from the URI, and is given to the token
// once. A token that locks its PIN after some wrong ones tells only whether
// that is near ([Tries]); its last try is not used up unless Options.FinalTry
// says so. The binding to the library copies the PIN, and what the token
// computes, to memory that it does not erase.
package pkcs11
