package connect

import (
	"net/url"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// TestCallbackMAC: the vector is of Shopify's documentation; whatever is changed in it, or left out, is refused.
func TestCallbackMAC(t *testing.T) {
	const mac = "4712bf92ffc2917d15a2f5a273e39f0116667419aa4b6ac0b3baaf26fa3c4d20"
	good := "code=0907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&timestamp=1337178173&hmac="
	for name, tc := range map[string]struct {
		query, key string
		ok         bool
	}{
		"as documented":   {good + mac, "hush", true},
		"another secret":  {good + mac, "other", false},
		"no secret":       {good + mac, "", false},
		"another code":    {"code=1907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&timestamp=1337178173&hmac=" + mac, "hush", false},
		"one more":        {good + mac + "&host=x", "hush", false},
		"none":            {good, "hush", false},
		"left out":        {"code=0907a61c0c8d55e99db179b68161bc00&shop=some-shop.myshopify.com&timestamp=1337178173", "hush", false},
		"half of it":      {good + mac[:32], "hush", false},
		"pairs in a pair": {"code=0907a61c0c8d55e99db179b68161bc00%26shop%3Dsome-shop.myshopify.com&timestamp=1337178173&hmac=" + mac, "hush", false},
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkMAC(q, "hmac", secret.New(tc.key)); (err == nil) != tc.ok || err != nil && fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
}
