package pkcs11

import (
	"encoding/binary"
	"errors"
)

// The part of PKCS#11 (version 2.40, and 3.0 for Ed25519) that is used here,
// under its names.
const (
	ckaClass       = 0x00000000
	ckaToken       = 0x00000001
	ckaPrivate     = 0x00000002
	ckaLabel       = 0x00000003
	ckaValue       = 0x00000011
	ckaKeyType     = 0x00000100
	ckaID          = 0x00000102
	ckaSensitive   = 0x00000103
	ckaEncrypt     = 0x00000104
	ckaDecrypt     = 0x00000105
	ckaWrap        = 0x00000106
	ckaUnwrap      = 0x00000107
	ckaSign        = 0x00000108
	ckaVerify      = 0x0000010A
	ckaDerive      = 0x0000010C
	ckaValueLen    = 0x00000161
	ckaExtractable = 0x00000162
	ckaECParams    = 0x00000180
	ckaECPoint     = 0x00000181

	ckoPublicKey  = 2
	ckoPrivateKey = 3
	ckoSecretKey  = 4

	ckkAES       = 0x0000001F
	ckkECEdwards = 0x00000040

	ckmECEdwardsKeyPairGen = 0x00001055
	ckmEDDSA               = 0x00001057
	ckmAESKeyGen           = 0x00001080
	ckmAESECB              = 0x00001081
	ckmAESCMAC             = 0x0000108A

	ckfSign    = 0x00000800 // of a mechanism
	ckfEncrypt = 0x00000100

	ckfUserPINInitialized = 0x00000008 // of a token
	ckfProtectedPath      = 0x00000100
	ckfTokenInitialized   = 0x00000400
	ckfUserPINCountLow    = 0x00010000
	ckfUserPINFinalTry    = 0x00020000
	ckfUserPINLocked      = 0x00040000
	ckfUserPINToBeChanged = 0x00080000
)

const (
	ckrSlotIDInvalid        code = 0x00000003
	ckrAttributeTypeInvalid code = 0x00000012
	ckrAttributeValue       code = 0x00000013
	ckrDeviceRemoved        code = 0x00000032
	ckrMechanismInvalid     code = 0x00000070
	ckrPINIncorrect         code = 0x000000A0
	ckrPINInvalid           code = 0x000000A1
	ckrPINLenRange          code = 0x000000A2
	ckrPINExpired           code = 0x000000A3
	ckrPINLocked            code = 0x000000A4
	ckrSessionClosed        code = 0x000000B0
	ckrSessionHandleInvalid code = 0x000000B3
	ckrTokenNotPresent      code = 0x000000E0
	ckrTokenNotRecognized   code = 0x000000E1
	ckrUserAlreadyLoggedIn  code = 0x00000100
	ckrUserNotLoggedIn      code = 0x00000101
	ckrUserPINNotInit       code = 0x00000102
	ckrDomainParamsInvalid  code = 0x00000130
	ckrCurveNotSupported    code = 0x00000140
)

// codeNames are the codes that people are likely to meet.
var codeNames = map[code]string{
	0x00000002: "CKR_HOST_MEMORY", 0x00000005: "CKR_GENERAL_ERROR", 0x00000006: "CKR_FUNCTION_FAILED",
	0x00000010: "CKR_ATTRIBUTE_READ_ONLY", 0x00000030: "CKR_DEVICE_ERROR", 0x00000031: "CKR_DEVICE_MEMORY",
	0x00000054: "CKR_FUNCTION_NOT_SUPPORTED", 0x00000060: "CKR_KEY_HANDLE_INVALID",
	0x00000063: "CKR_KEY_TYPE_INCONSISTENT", 0x00000068: "CKR_KEY_FUNCTION_NOT_PERMITTED",
	0x00000082: "CKR_OBJECT_HANDLE_INVALID", 0x00000090: "CKR_OPERATION_ACTIVE", 0x000000B1: "CKR_SESSION_COUNT",
	0x000000D0: "CKR_TEMPLATE_INCOMPLETE", 0x000000D1: "CKR_TEMPLATE_INCONSISTENT",
	0x000000E2: "CKR_TOKEN_WRITE_PROTECTED", 0x00000150: "CKR_BUFFER_TOO_SMALL",
	0x00000190: "CKR_CRYPTOKI_NOT_INITIALIZED",

	ckrSlotIDInvalid: "CKR_SLOT_ID_INVALID", ckrAttributeTypeInvalid: "CKR_ATTRIBUTE_TYPE_INVALID",
	ckrAttributeValue: "CKR_ATTRIBUTE_VALUE_INVALID", ckrDeviceRemoved: "CKR_DEVICE_REMOVED",
	ckrMechanismInvalid: "CKR_MECHANISM_INVALID", ckrPINIncorrect: "CKR_PIN_INCORRECT", ckrPINInvalid: "CKR_PIN_INVALID",
	ckrPINLenRange: "CKR_PIN_LEN_RANGE", ckrPINExpired: "CKR_PIN_EXPIRED", ckrPINLocked: "CKR_PIN_LOCKED",
	ckrSessionClosed: "CKR_SESSION_CLOSED", ckrSessionHandleInvalid: "CKR_SESSION_HANDLE_INVALID",
	ckrTokenNotPresent: "CKR_TOKEN_NOT_PRESENT", ckrTokenNotRecognized: "CKR_TOKEN_NOT_RECOGNIZED",
	ckrUserAlreadyLoggedIn: "CKR_USER_ALREADY_LOGGED_IN", ckrUserNotLoggedIn: "CKR_USER_NOT_LOGGED_IN",
	ckrUserPINNotInit: "CKR_USER_PIN_NOT_INITIALIZED", ckrDomainParamsInvalid: "CKR_DOMAIN_PARAMS_INVALID",
	ckrCurveNotSupported: "CKR_CURVE_NOT_SUPPORTED",
}

// attribute of an object. value is a bool, uint (CK_ULONG), string or []byte.
type attribute struct {
	typ   uint
	value any
}

type tokenInfo struct {
	label, manufacturer, model, serial string
	flags                              uint
}

type slotInfo struct{ manufacturer, description string }

type libraryInfo struct {
	manufacturer, description string
	major, minor              byte
}

// library is a PKCS#11 library, initialised. Its errors are codes.
type library interface {
	info() (libraryInfo, error)
	slots() ([]uint, error) // those with a token
	slotInfo(slot uint) (slotInfo, error)
	tokenInfo(slot uint) (tokenInfo, error)
	// mechanism returns the flags of a mechanism, 0 where there is none.
	mechanism(slot, mechanism uint) (uint, error)
	openSession(slot uint, write bool) (uint, error)
	closeSession(session uint) error
	loggedIn(session uint) (bool, error) // as the user
	login(session uint, pin []byte) error
	find(session uint, template []attribute) ([]uint, error)
	attribute(session, object, typ uint) ([]byte, error)
	setAttribute(session, object uint, a attribute) error
	generateKey(session, mechanism uint, template []attribute) (uint, error)
	generateKeyPair(session, mechanism uint, public, private []attribute) (uint, uint, error)
	createObject(session uint, template []attribute) (uint, error)
	destroy(session, object uint) error
	sign(session, mechanism, key uint, message []byte) ([]byte, error)
	encrypt(session, mechanism, key uint, data []byte) ([]byte, error)
	release() // gives the library back
}

// ulong decodes a CK_ULONG, whose size is the system's.
func ulong(b []byte) (uint, error) {
	switch len(b) {
	case 4:
		return uint(binary.NativeEndian.Uint32(b)), nil
	case 8:
		return uint(binary.NativeEndian.Uint64(b)), nil
	}
	return 0, errors.New("number of a wrong size")
}
