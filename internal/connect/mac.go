package connect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// checkMAC holds a callback's parameters against the vendor's own word for them: the parameter of this name is the hexadecimal
// HMAC-SHA256, by the client's secret, of all others in their order. Shopify's is so.
func checkMAC(params url.Values, name string, key secret.Text) error {
	escape := strings.NewReplacer("%", "%25", "&", "%26")
	var pairs []string
	for k, values := range params {
		if k == name {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, strings.ReplaceAll(escape.Replace(k), "=", "%3D")+"="+escape.Replace(v))
		}
	}
	slices.Sort(pairs)
	mac := hmac.New(sha256.New, []byte(key.Expose()))
	_, _ = mac.Write([]byte(strings.Join(pairs, "&"))) // a hash takes everything
	said, err := hex.DecodeString(params.Get(name))
	if err != nil || key.IsZero() || !hmac.Equal(said, mac.Sum(nil)) {
		return fault.New(fault.Denied, "this answer is not one that the service gave for us; nothing was saved; begin again where you came from", nil)
	}
	return nil
}
