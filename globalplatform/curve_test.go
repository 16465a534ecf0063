package globalplatform_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/freearea/freearea/globalplatform"
	"github.com/freearea/freearea/iso7816"
)

// Tokens for the deletion in TestTokenSchemes by keys on the Brainpool curves,
// made with OpenSSL 3.0 (openssl dgst -sha256, -sha384, -sha512): curve, public
// key, and r and s one after the other.
var brainpoolTokens = []struct{ curve, public, token string }{
	{"brainpoolP256r1", "0432D664A682EE11A2FC0E2083E56D31B6B6E44650521B6227E8A13BFEEEBDB1F188B658B77FCFD46A47E4603B3E73265A542B223DB30DF81EED39A44CAACEBF87", "1B52FC5BFBC5367B4A6007A0C03F906F53C89441A9E52E1BCF6DC0E430BE6D1A034FF3CE1BBADEF99E9BFCA6CC112430C0E285233B42B37E4F22ECFFE4AF21B9"},
	{"brainpoolP256t1", "04489BBE15E4AA00AC7485087C13D3A1CC00E3822A571D04564F1E8EE29047DA1136EFFF1503BAF1429B0200EB7FD87CCAB4D6C467692D38431538AFE35EF71102", "103FDED8063FCBB0F557C986F2EB3BC7F7076C60859BE9AFCE048CC4E357602441FCBFD73EFB53C61B539E82ECB1D19445B730E356114A66EAE111C389D0B698"},
	{"brainpoolP384r1", "04702A74490E7863871BC23FEB488F3AF5342DFD13959C8B4BD88977B224D631815684F379699F06F98EE7DB9BAA4CCFF8630559F3F7DBE43391F391F83C826E8A0373F3D781EE8E2AA3B74F9E53FE921287DEC9FCF09DADFCB10FA8440B72AF29", "14DE00736ACD9CCDCA1E36126E5AC36145DC438A8E00A4D79DC774E6641271829879B590AE35F96E00F1700800CE499B476264C1275ED70C077355D38217EF24120523CCA277BE985E72BEB7A4467FBCFB13A8E2DD79DFA68980BE84BD347EE6"},
	{"brainpoolP384t1", "0447AC729BAE936E320CF36600EFFD4AC15BDE5F20604CD79830A0B69A260417534F36C2DA2A8E927651806144BA809A2C89AF4F5E3E292748C62D02F0B3594B30B6E167FD469A52AB9DCCD36750996BC3935F87C5CFB058FF8ABC010B5CCA1B48", "8C05A55B516FF3D7926437709D258384D245D3713D04497112D92F49601C72DA69D02084F4518E47320C2B0B06AB162B41718265696966F4C201173759FFE56261E139ED1C67CBAD0B7B1CEFC99F63486DFEDBD4C5CE7C26E0AC6883BD360C8A"},
	{"brainpoolP512r1", "0455D4A31256AB92DE07C44862F466B73949BFCC027E85E55132295A2A21E222F4435DFDCA8E060A8DADF889143721337CDB7344F1B71280A75B3163504BF89CCB5C74CA4F7B60F3A3B08B1336F7D22CF12CE67F1574D847AFBCD98C7C9EC37F1FC61B21B03E73308DAF715D3981915CB751C3693487F16285431582016E78592E", "A8B86228592BEAC84FA78B431C6B488266CEE0691E0B57456726292A9041774FFEA997E96F910686C67DED175B5A808A2217C66879C62EA41227587D7BBE7AB1AA78E1111E6FF3D9853A3B715123BF7A4A4C3725A191E0F079E9C71928661EC890AE89610DAD5AE8D3136B55A76C2FA365E1915ACDFA169BE2A45FC2828A8FAF"},
	{"brainpoolP512t1", "042362418F8509BB9CD00F363AA94129DDE3C7909F09CF46C623C3931E96B84F45660B75346F639B333E9BD44B74A7A14E0E97A766B996C7D18B29C2A47CE2C054768886F06BD06E2D05018C3E5E987FE18B52F6B343979693A8BE7C189B215A566B847AFD103A13CF2DC44C7D41B665B46FE5600E105C44239EF3C3F0E76EC14E", "3A66ACA39E64489DE99BAACCC159325C1BC3E2CED2BF2F8836996F607AD19A35D48D881E51FE426C7F5D51C59C59FD5D5FF5C87D666C4BD4FBA5EEECB94EF8B621395BF4E580B08293723B6AF784DF70622F3FD5E7D69845359AA1168A803F7DDBA9650F433A54B84A0C5555F00B501AF8790DAB8C6F4F856E6297DD9F0582FE"},
}

func TestBrainpoolTokens(t *testing.T) {
	d := globalplatform.Delete{AID: iso7816.MustAID("D0D1D2D3D4D501"), Related: true}
	for i, test := range brainpoolTokens {
		point := unhex(t, test.public)
		k, err := globalplatform.ParseECPublicKey(test.curve, point)
		if err != nil {
			t.Fatal(err)
		}
		v := globalplatform.PublicKeyScheme{Key: k}
		for j, other := range brainpoolTokens {
			if err := globalplatform.VerifyToken(v, d, unhex(t, other.token)); (err == nil) != (i == j) || err != nil && !errors.Is(err, globalplatform.ErrSignature) {
				t.Errorf("%s with the token of %s: %v", test.curve, other.curve, err)
			}
		}
		changed := d
		changed.Related = false
		if err := globalplatform.VerifyToken(v, changed, unhex(t, test.token)); !errors.Is(err, globalplatform.ErrSignature) {
			t.Errorf("%s: another command: %v", test.curve, err)
		}
		// As PUT KEY carries it: the reference is that of table B-2.
		value, err := globalplatform.ECPublicKey(k)
		if name, _ := globalplatform.CurveName(byte(3 + i)); err != nil || name != test.curve || value.Information()[1].Length != 3+i {
			t.Errorf("%s: %v, %v; reference %d is %q", test.curve, value.Information(), err, 3+i, name)
		}
		// Nothing that isn't a point of the curve.
		point[len(point)-1] ^= 1
		for name, b := range map[string][]byte{"off the curve": point, "short": point[1:], "compressed": append([]byte{2}, point[1:len(point)/2+1]...), "nothing": nil} {
			if _, err := globalplatform.ParseECPublicKey(test.curve, b); !errors.Is(err, globalplatform.ErrKey) {
				t.Errorf("%s, %s: %v", test.curve, name, err)
			}
		}
	}
	if _, err := globalplatform.ParseECPublicKey("P-224", nil); !errors.Is(err, globalplatform.ErrKey) {
		t.Errorf("P-224: %v", err)
	}
	if name, ok := globalplatform.CurveName(9); ok {
		t.Errorf("reference 09 is %s", name)
	}
	p256, err := globalplatform.ParseECPublicKey("P-256", elliptic256(t))
	if value, err2 := globalplatform.ECPublicKey(p256); err != nil || err2 != nil || value.Information()[1].Length != 0 {
		t.Errorf("P-256: %v, %v", err, err2)
	}
	if _, err := globalplatform.ParseECPublicKey("P-256", bytes.Repeat([]byte{4}, 65)); !errors.Is(err, globalplatform.ErrKey) {
		t.Errorf("no point of P-256: %v", err)
	}
	if _, err := globalplatform.ECPublicKey(strings.NewReader("")); !errors.Is(err, globalplatform.ErrKey) {
		t.Errorf("no key: %v", err)
	}
}

// elliptic256 is the generator of P-256 (FIPS 186-4, D.1.2.3).
func elliptic256(t *testing.T) []byte {
	return unhex(t, "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C2964FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5")
}
