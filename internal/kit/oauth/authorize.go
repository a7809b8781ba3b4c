package oauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// AuthorizationRequest is a request to an authorization endpoint, for the code flow with PKCE (RFC 6749 s4.1.1,
// RFC 7636 s4.3).
type AuthorizationRequest struct {
	Endpoint       string // may have a query of its own
	ClientID       string
	RedirectURI    string
	State          string // from Random; whoever keeps it binds it to browser, issuer and verifier
	CodeChallenge  string // from CodeChallenge; empty only for vendors that reject PKCE
	Nonce          string // OpenID Connect, else empty
	Prompt         string
	Scopes         []string          // none: the parameter is not sent
	ScopeParam     string            // "scope" if empty
	ScopeSeparator string            // " " if empty
	Resources      []string          // RFC 8707
	Extra          map[string]string // what the vendor needs besides; may not repeat a parameter from above
}

// URL returns where to send the browser. Invalid if a part is missing, malformed, or said twice.
func (r AuthorizationRequest) URL() (string, error) {
	own, err := r.params()
	if err != nil {
		return "", err
	}
	return r.at(own)
}

// params are the request's own.
func (r AuthorizationRequest) params() (url.Values, error) {
	if r.ClientID == "" || r.RedirectURI == "" || r.State == "" {
		return nil, fault.New(fault.Invalid, "an authorization request needs client_id, redirect_uri and state", nil)
	}
	own := url.Values{"response_type": {"code"}}
	set := func(name, value string) {
		if value != "" {
			own.Set(name, value)
		}
	}
	set("client_id", r.ClientID)
	set("redirect_uri", r.RedirectURI)
	set("state", r.State)
	set("nonce", r.Nonce)
	set("prompt", r.Prompt)
	if r.CodeChallenge != "" {
		set("code_challenge", r.CodeChallenge)
		set("code_challenge_method", ChallengeMethod)
	}
	set(cmp.Or(r.ScopeParam, "scope"), JoinScopes(r.Scopes, r.ScopeSeparator))
	for _, resource := range r.Resources {
		if !isResource(resource) {
			return nil, fault.New(fault.Invalid, "a resource is an absolute URI without fragment", nil)
		}
		own.Add("resource", resource)
	}
	return own, merge(own, r.Extra)
}

// at adds parameters to the endpoint's own.
func (r AuthorizationRequest) at(params url.Values) (string, error) {
	u, ok := checkEndpoint(r.Endpoint)
	if !ok {
		return "", fault.New(fault.Invalid, "the authorization endpoint is not a usable https URL", nil)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", fault.New(fault.Invalid, "the authorization endpoint has a malformed query", nil)
	}
	for name, values := range params {
		if query.Has(name) {
			return "", fault.New(fault.Invalid, "the authorization endpoint already has the parameter "+name, nil)
		}
		query[name] = values
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// isResource follows RFC 8707 s2: absolute, no fragment.
func isResource(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && len(s) <= 2048 && !strings.Contains(s, "#")
}

// merge adds what a vendor's facts add; they may not replace what we say ourselves.
func merge(own url.Values, extra map[string]string) error {
	for name, value := range extra {
		if own.Has(name) {
			return fault.New(fault.Invalid, "an extra parameter repeats "+name, nil)
		}
		own.Set(name, value)
	}
	return nil
}

// ExpectedResponse is what was remembered when the browser left.
type ExpectedResponse struct {
	State  string
	Issuer string // the issuer that was asked; empty if the vendor has none

	// IssPromised: the issuer's metadata say that it sends iss (RFC 9207 s3), so that an answer without is not its own.
	IssPromised bool
}

// AuthorizationResponse is a successful one (RFC 6749 s4.1.2).
type AuthorizationResponse struct {
	Code  secret.Text
	Extra map[string]string // whatever else came, unchecked: some vendors say here which account it is
}

// AuthorizationError is an authorization server's no (RFC 6749 s4.1.2.1). Nothing but the code is kept of it.
type AuthorizationError struct {
	Code string // passed through ErrorCode, so "" for an odd one
}

func (e *AuthorizationError) Error() string {
	if e.Code == "" {
		return "the authorization server answered with an unreadable error"
	}
	return "the authorization server answered " + e.Code
}

// sentence says in our words what the code means to the person at the browser.
func (e *AuthorizationError) sentence() string {
	switch e.Code {
	case CodeAccessDenied, "consent_required":
		return "consent was not given at the vendor; start again to be asked once more"
	case "login_required", "interaction_required", "account_selection_required":
		return "the vendor wants you to sign in there first; start again"
	case CodeServerError, CodeTemporarilyUnavailable:
		return "the vendor cannot answer now; try again later"
	case CodeInvalidScope:
		return "the vendor does not know a requested scope; ask your operator"
	}
	return "the vendor refused the request; ask your operator"
}

const maxResponseQuery = 16 << 10

// Check reads the query of the redirect that came back. An error of kind Invalid means that the response is not the
// answer to what was asked, so that nothing of it may be shown or acted on; Denied or Unavailable with an
// *AuthorizationError in the chain is the server's own no.
func (want ExpectedResponse) Check(rawQuery string) (AuthorizationResponse, error) {
	params, err := singleParams(rawQuery)
	if err != nil {
		return AuthorizationResponse{}, err
	}
	if !Same(params["state"], want.State) {
		return AuthorizationResponse{}, fault.New(fault.Invalid, "the response does not belong to this browser's request; start again", nil)
	}
	// Before error is looked at: a foreign server's error is as foreign as its code (RFC 9207 s2.4).
	if err := want.checkIss(params); err != nil {
		return AuthorizationResponse{}, err
	}
	if code, failed := params["error"]; failed {
		no := &AuthorizationError{Code: ErrorCode(code)}
		kind := fault.Denied
		if no.Code == CodeServerError || no.Code == CodeTemporarilyUnavailable {
			kind = fault.Unavailable
		}
		return AuthorizationResponse{}, fault.New(kind, no.sentence(), no)
	}
	if !visible(params["code"], maxToken) {
		return AuthorizationResponse{}, fault.New(fault.Invalid, "the response has neither a usable code nor an error; start again", nil)
	}
	resp := AuthorizationResponse{Code: secret.New(params["code"]), Extra: params}
	for _, known := range []string{"code", "state", "iss"} {
		delete(resp.Extra, known)
	}
	return resp, nil
}

// checkIss is the table of RFC 9207 s2.4 as MCP tightens it: promised and absent is refused, present is compared.
// Present without an issuer to compare with is refused too.
func (want ExpectedResponse) checkIss(params map[string]string) error {
	iss, present := params["iss"]
	if !present && !want.IssPromised {
		return nil
	}
	if !present || want.Issuer == "" || iss != want.Issuer {
		return fault.New(fault.Invalid, "the response does not come from the authorization server that was asked; start again", nil)
	}
	return nil
}

// singleParams refuses a parameter that appears twice (RFC 6749 s3.1): two readers could see two codes.
func singleParams(rawQuery string) (map[string]string, error) {
	if len(rawQuery) > maxResponseQuery {
		return nil, fault.New(fault.Invalid, "the response is too long; start again", nil)
	}
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the response is malformed; start again", nil)
	}
	params := make(map[string]string, len(values))
	for name, all := range values {
		if len(all) != 1 {
			return nil, fault.New(fault.Invalid, "the response repeats a parameter; start again", nil)
		}
		params[name] = all[0]
	}
	return params, nil
}

// ChallengeMethod is the only PKCE method that is ever used: plain protects nothing (RFC 9700 s2.1.1).
const ChallengeMethod = "S256"

// Random returns 256 bits from rand (crypto/rand.Reader in production) as 43 URL-safe characters: fit for state,
// nonce, and a PKCE verifier (RFC 7636 s4.1).
func Random(rand io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Verifier returns a new PKCE code verifier.
func Verifier(rand io.Reader) (secret.Text, error) {
	v, err := Random(rand)
	return secret.New(v), err
}

// CodeChallenge returns the S256 challenge of a verifier (RFC 7636 s4.2).
func CodeChallenge(verifier secret.Text) string { return s256(verifier.Expose()) }

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// VerifierMatches reports whether verifier, as a client sent it to us, is well formed and hashes to challenge (RFC 7636
// s4.1 and s4.6).
func VerifierMatches(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 ||
		strings.ContainsFunc(verifier, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._~", r) }) {
		return false
	}
	return Same(s256(verifier), challenge)
}

// Same compares in constant time. An empty value is the same as nothing, not even another empty one: a forgotten
// expectation must not match a missing parameter.
func Same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// Push hands an authorization request to the server itself (RFC 9126 section 2) and returns where to send the browser, which then
// carries nothing but a reference. e.URL is the pushed authorization request endpoint, e the client there as at the token endpoint.
// Errors as Exchange.
func (c Client) Push(ctx context.Context, e Endpoint, r AuthorizationRequest) (string, error) {
	params, err := r.params()
	if err != nil {
		return "", err
	}
	e.ExtraParams, e.Request = nil, BodyForm // extra ones are the token endpoint's; section 2.1 knows forms alone
	if e.Auth == AuthBasic || e.Auth == AuthSecretUser {
		params.Set("client_id", r.ClientID)
	}
	answer, err := c.post(ctx, e, params)
	if err != nil {
		return "", err
	}
	doc, err := parseAnswer(answer)
	if answer.status != http.StatusCreated && answer.status != http.StatusOK || !answer.whole || err != nil {
		return "", e.refusal(answer, doc).fault(e.URL)
	}
	reference, _ := at(doc, "/request_uri").(string)
	if !visible(reference, maxReference) {
		return "", fault.New(fault.Unavailable, hostOf(e.URL)+" took the request and gave no usable request_uri; ask your operator", nil)
	}
	return r.at(url.Values{"client_id": {r.ClientID}, "request_uri": {reference}})
}

const maxReference = 2048
