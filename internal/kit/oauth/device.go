package oauth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// What a device's poll is told while nothing is decided (RFC 8628 section 3.5).
const (
	CodeAuthorizationPending = "authorization_pending"
	CodeSlowDown             = "slow_down"
	CodeExpiredToken         = "expired_token"
)

// DeviceCode is the start of a device grant (RFC 8628 section 3.2).
type DeviceCode struct {
	Code     secret.Text // ours alone
	UserCode string      // what the person types at URI: as much of a secret as he makes of it
	URI      string
	Complete string // URI with the code in it; "" where the vendor has none, or names another host in it
	Expires  time.Time
	Interval time.Duration // between two polls
}

const (
	maxDeviceCode = 2048
	maxUserCode   = 64
	minInterval   = time.Second
	maxInterval   = time.Minute

	// DefaultInterval is how often is asked where the vendor does not say (RFC 8628 section 3.2).
	DefaultInterval = 5 * time.Second
)

// Device asks for a code that a person enters at the vendor; e.URL is the device authorization endpoint. Errors as Exchange.
func (c Client) Device(ctx context.Context, e Endpoint, scopes, resources []string) (DeviceCode, error) {
	params := url.Values{"client_id": {e.ClientID}}
	if len(scopes) > 0 {
		params.Set("scope", JoinScopes(scopes, e.ScopeSeparator))
	}
	for _, r := range resources {
		params.Add("resource", r)
	}
	e.ExtraParams, e.Request = nil, BodyForm
	asked := c.Now()
	r, err := c.post(ctx, e, params)
	if err != nil {
		return DeviceCode{}, err
	}
	doc, err := parseAnswer(r)
	if r.status != http.StatusOK || !r.whole || err != nil || e.Answer.errorIn(doc) != "" {
		return DeviceCode{}, e.refusal(r, doc).fault(e.URL)
	}
	text := func(names ...string) string {
		for _, n := range names {
			if s, ok := at(doc, "/"+n).(string); ok {
				return s
			}
		}
		return ""
	}
	code := text("device_code")
	d := DeviceCode{Code: secret.New(code), UserCode: text("user_code"), URI: text("verification_uri", "verification_url"), // the second at Google
		Complete: text("verification_uri_complete", "verification_url_complete"), Interval: DefaultInterval}
	life, ok := seconds(at(doc, "/expires_in"))
	if !visible(code, maxDeviceCode) || !visible(d.UserCode, maxUserCode) || !UsableEndpoint(d.URI) || !ok || life <= 0 {
		return DeviceCode{}, fault.New(fault.Unavailable, hostOf(e.URL)+" gave a code that cannot be used; ask your operator", nil)
	}
	d.Expires = asked.Add(life)
	if every, ok := seconds(at(doc, "/interval")); ok {
		d.Interval = min(max(every, minInterval), maxInterval)
	}
	if !UsableEndpoint(d.Complete) || hostOf(d.Complete) != hostOf(d.URI) { // the person is shown one host, and goes to it
		d.Complete = ""
	}
	return d, nil
}

// DeviceToken asks once whether the person has decided. While he has not, the error's TokenError says CodeAuthorizationPending or
// CodeSlowDown. Other errors as Exchange.
func (c Client) DeviceToken(ctx context.Context, e Endpoint, code secret.Text, resources []string) (Token, error) {
	return c.token(ctx, e, url.Values{"grant_type": {GrantDeviceCode}, "device_code": {code.Expose()}}, resources)
}
