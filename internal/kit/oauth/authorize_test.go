package oauth_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func TestAuthorizationRequestURL(t *testing.T) {
	base := oauth.AuthorizationRequest{Endpoint: "https://up.example/authorize", ClientID: "id&x", RedirectURI: "https://gw.example/callback/up", State: "s1"}
	for name, c := range map[string]struct {
		change func(*oauth.AuthorizationRequest)
		want   url.Values
	}{
		"least": {func(*oauth.AuthorizationRequest) {}, url.Values{}},
		"all": {func(r *oauth.AuthorizationRequest) {
			r.CodeChallenge, r.Nonce, r.Prompt, r.Scopes = "E9Mel", "n1", "consent", []string{"a", "b"}
			r.Resources = []string{"https://r.example/mcp", "https://r2.example"}
			r.Extra = map[string]string{"access_type": "offline"}
		}, url.Values{"code_challenge": {"E9Mel"}, "code_challenge_method": {"S256"}, "nonce": {"n1"}, "prompt": {"consent"}, "scope": {"a b"},
			"resource": {"https://r.example/mcp", "https://r2.example"}, "access_type": {"offline"}}},
		"Slack": {func(r *oauth.AuthorizationRequest) {
			r.ScopeParam, r.ScopeSeparator, r.Scopes = "user_scope", ",", []string{"search:read", "users:read"}
		}, url.Values{"user_scope": {"search:read,users:read"}}},
		"endpoint with query": {func(r *oauth.AuthorizationRequest) { r.Endpoint += "?tenant=7" }, url.Values{"tenant": {"7"}}},
	} {
		r := base
		c.change(&r)
		got, err := r.URL()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		u, _ := url.Parse(got)
		for k, v := range map[string]string{"response_type": "code", "client_id": "id&x", "redirect_uri": base.RedirectURI, "state": "s1"} {
			c.want.Set(k, v)
		}
		if diff := cmp.Diff(c.want, u.Query()); diff != "" || !strings.HasPrefix(got, "https://up.example/authorize?") {
			t.Errorf("%s: %s\n%s", name, got, diff)
		}
	}
	for name, change := range map[string]func(*oauth.AuthorizationRequest){
		"http":                func(r *oauth.AuthorizationRequest) { r.Endpoint = "http://up.example/a" },
		"javascript":          func(r *oauth.AuthorizationRequest) { r.Endpoint = "javascript:alert(1)//" },
		"fragment":            func(r *oauth.AuthorizationRequest) { r.Endpoint += "#x" },
		"no state":            func(r *oauth.AuthorizationRequest) { r.State = "" },
		"no client":           func(r *oauth.AuthorizationRequest) { r.ClientID = "" },
		"no redirect":         func(r *oauth.AuthorizationRequest) { r.RedirectURI = "" },
		"extra repeats state": func(r *oauth.AuthorizationRequest) { r.Extra = map[string]string{"state": "x"} },
		"extra response_type": func(r *oauth.AuthorizationRequest) { r.Extra = map[string]string{"response_type": "token"} },
		"query repeats ours":  func(r *oauth.AuthorizationRequest) { r.Endpoint += "?client_id=evil" },
		"resource fragment":   func(r *oauth.AuthorizationRequest) { r.Resources = []string{"https://r.example/#x"} },
		"resource relative":   func(r *oauth.AuthorizationRequest) { r.Resources = []string{"/mcp"} },
	} {
		r := base
		change(&r)
		if got, err := r.URL(); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

func TestCheckResponse(t *testing.T) {
	const iss = "https://as.example/t1"
	plain := oauth.ExpectedResponse{State: "s1"}
	known := oauth.ExpectedResponse{State: "s1", Issuer: iss}
	promised := oauth.ExpectedResponse{State: "s1", Issuer: iss, IssPromised: true}
	q := func(kv ...string) string {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		return v.Encode()
	}
	for name, c := range map[string]struct {
		want  oauth.ExpectedResponse
		query string
		kind  fault.Kind // ignored for ok
		ok    bool
		code  string // of the server's own error
	}{
		"plain":                    {want: plain, query: q("code", "c1", "state", "s1"), ok: true},
		"promised and present":     {want: promised, query: q("code", "c1", "state", "s1", "iss", iss), ok: true},
		"promised and absent":      {want: promised, query: q("code", "c1", "state", "s1"), kind: fault.Invalid},
		"not promised, present":    {want: known, query: q("code", "c1", "state", "s1", "iss", iss), ok: true},
		"not promised, absent":     {want: known, query: q("code", "c1", "state", "s1"), ok: true},
		"other iss":                {want: known, query: q("code", "c1", "state", "s1", "iss", "https://evil.example"), kind: fault.Invalid},
		"iss with slash":           {want: promised, query: q("code", "c1", "state", "s1", "iss", iss+"/"), kind: fault.Invalid},
		"iss in upper case":        {want: promised, query: q("code", "c1", "state", "s1", "iss", "https://AS.example/t1"), kind: fault.Invalid},
		"iss with port":            {want: promised, query: q("code", "c1", "state", "s1", "iss", "https://as.example:443/t1"), kind: fault.Invalid},
		"empty iss":                {want: promised, query: q("code", "c1", "state", "s1", "iss", ""), kind: fault.Invalid},
		"iss without expectation":  {want: plain, query: q("code", "c1", "state", "s1", "iss", iss), kind: fault.Invalid},
		"promised by nobody":       {want: oauth.ExpectedResponse{State: "s1", IssPromised: true}, query: q("code", "c1", "state", "s1", "iss", ""), kind: fault.Invalid},
		"iss twice":                {want: promised, query: q("code", "c1", "state", "s1", "iss", iss, "iss", iss), kind: fault.Invalid},
		"code twice":               {want: plain, query: q("code", "c1", "code", "c2", "state", "s1"), kind: fault.Invalid},
		"foreign parameter twice":  {want: plain, query: q("code", "c1", "state", "s1", "realmId", "1", "realmId", "2"), kind: fault.Invalid},
		"other state":              {want: plain, query: q("code", "c1", "state", "s2"), kind: fault.Invalid},
		"no state":                 {want: plain, query: q("code", "c1"), kind: fault.Invalid},
		"nothing expected":         {want: oauth.ExpectedResponse{}, query: q("code", "c1", "state", ""), kind: fault.Invalid},
		"no code":                  {want: plain, query: q("state", "s1"), kind: fault.Invalid},
		"code with line break":     {want: plain, query: q("code", "c\r\n1", "state", "s1"), kind: fault.Invalid},
		"long code":                {want: plain, query: q("code", strings.Repeat("c", 17<<10), "state", "s1"), kind: fault.Invalid},
		"malformed":                {want: plain, query: "code=%zz&state=s1", kind: fault.Invalid},
		"semicolon":                {want: plain, query: "code=c1;state=s1", kind: fault.Invalid},
		"declined":                 {want: promised, query: q("error", "access_denied", "state", "s1", "iss", iss, "error_description", "<script>"), kind: fault.Denied, code: "access_denied"},
		"server error":             {want: plain, query: q("error", "server_error", "state", "s1"), kind: fault.Unavailable, code: "server_error"},
		"odd error":                {want: plain, query: q("error", "<script>", "state", "s1"), kind: fault.Denied},
		"error and code":           {want: plain, query: q("error", "access_denied", "code", "c1", "state", "s1"), kind: fault.Denied, code: "access_denied"},
		"error of another issuer":  {want: known, query: q("error", "access_denied", "state", "s1", "iss", "https://evil.example"), kind: fault.Invalid},
		"error of another browser": {want: plain, query: q("error", "access_denied", "state", "s2"), kind: fault.Invalid},
	} {
		got, err := c.want.Check(c.query)
		if c.ok {
			if err != nil || got.Code.Expose() != "c1" {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
			continue
		}
		if err == nil || fault.KindOf(err) != c.kind || !got.Code.IsZero() {
			t.Errorf("%s: got %v, %v, want kind %v", name, got, err, c.kind)
			continue
		}
		if strings.Contains(err.Error(), "script") {
			t.Errorf("%s: quotes the other side: %v", name, err)
		}
		var no *oauth.AuthorizationError
		if own := errors.As(err, &no); own != (c.kind != fault.Invalid) || own && no.Code != c.code {
			t.Errorf("%s: got %#v, want code %q", name, no, c.code)
		}
	}
	got, err := known.Check(q("code", "c1", "state", "s1", "iss", iss, "realmId", "42"))
	if diff := cmp.Diff(map[string]string{"realmId": "42"}, got.Extra); diff != "" || err != nil {
		t.Errorf("captures: %v\n%s", err, diff)
	}
}

func FuzzCheckResponse(f *testing.F) {
	f.Add("code=c1&state=s1")
	f.Add("code=c1&state=s1&iss=https://as.example")
	f.Add("error=access_denied&state=s1&error_description=x")
	f.Fuzz(func(t *testing.T, query string) {
		got, err := oauth.ExpectedResponse{State: "s1", Issuer: "https://as.example", IssPromised: true}.Check(query)
		if err != nil {
			return
		}
		values, _ := url.ParseQuery(query)
		if got.Code.Expose() != values.Get("code") || values.Get("iss") != "https://as.example" || values.Get("state") != "s1" || values.Has("error") {
			t.Fatalf("accepted %q", query)
		}
	})
}
