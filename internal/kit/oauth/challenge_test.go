package oauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func TestBearerChallenge(t *testing.T) {
	for _, c := range []struct {
		params []oauth.Param
		want   string
	}{
		{nil, `Bearer`},
		{[]oauth.Param{{"error", ""}, {"resource_metadata", "https://gw.example/.well-known/oauth-protected-resource/t/acme/mcp/jira"}, {"scope", "mcp:tools"}},
			`Bearer resource_metadata="https://gw.example/.well-known/oauth-protected-resource/t/acme/mcp/jira", scope="mcp:tools"`},
		{[]oauth.Param{{"error_description", `say "no" \ never`}}, `Bearer error_description="say \"no\" \\ never"`},
		{[]oauth.Param{{"error_description", "a\r\nSet-Cookie: x=1\x00é"}}, `Bearer error_description="a??Set-Cookie: x=1??"`},
	} {
		if got := oauth.BearerChallenge(c.params...).String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestParseChallenges(t *testing.T) {
	p := func(nv ...string) (ps []oauth.Param) {
		for i := 0; i < len(nv); i += 2 {
			ps = append(ps, oauth.Param{Name: nv[i], Value: nv[i+1]})
		}
		return ps
	}
	for in, want := range map[string][]oauth.Challenge{
		"":       nil,
		" , ,":   nil,
		`Bearer`: {{Scheme: "Bearer"}},
		`Bearer error="insufficient_scope", scope="mcp:tools jira:write", resource_metadata="https://gw.example/.well-known/x", error_description="write tools need jira:write"`: {
			{Scheme: "Bearer", Params: p("error", "insufficient_scope", "scope", "mcp:tools jira:write", "resource_metadata", "https://gw.example/.well-known/x", "error_description", "write tools need jira:write")}},
		`bearer Realm=x , ERROR = "a\"b\\c"`: {{Scheme: "bearer", Params: p("realm", "x", "error", `a"b\c`)}},
		`Bearer a="x, Basic realm=\"y\""`:    {{Scheme: "Bearer", Params: p("a", `x, Basic realm="y"`)}},
		`Negotiate, Basic realm="x", Bearer a=b, c="d"`: {
			{Scheme: "Negotiate"}, {Scheme: "Basic", Params: p("realm", "x")}, {Scheme: "Bearer", Params: p("a", "b", "c", "d")}},
		`NTLM TlRMTVNTUAAC==, Bearer a="b"`:               {{Scheme: "NTLM", Token68: "TlRMTVNTUAAC=="}, {Scheme: "Bearer", Params: p("a", "b")}},
		`DPoP error="use_dpop_nonce", algs="ES256 PS256"`: {{Scheme: "DPoP", Params: p("error", "use_dpop_nonce", "algs", "ES256 PS256")}},
		`Bearer a=`:   {{Scheme: "Bearer", Token68: "a="}},
		`Bearer a=""`: {{Scheme: "Bearer", Params: p("a", "")}},
	} {
		got, err := oauth.ParseChallenges([]string{in})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", in, err, diff)
		}
	}
	two, err := oauth.ParseChallenges([]string{`Basic realm="x"`, `Bearer error="y"`})
	if err != nil || len(two) != 2 || two[1].Get("ERROR") != "y" || two[1].Get("realm") != "" {
		t.Errorf("two fields: %v, %v", two, err)
	}
}

func TestParseChallengesRefuses(t *testing.T) {
	for _, in := range []string{
		`="x"`, `a="x"`, `Bearer a="x`, `Bearer a="x\`, `Bearer a="x"b="y"`, `Bearer a="x" b="y"`, `Bearer a=,b=c`,
		`Bearer a b`, "Bearer a=\"x\ny\"", "Bearer a=\"x\\\n\"", "Bearer a=\"\x00\"", `Bearer a="1", a="2"`, `Bearer a="1", A="2"`,
		`Negotiate abc=, d="e"`, `"Bearer" a="b"`, "Bearer\ta=b",
		"Bearer a=\"" + strings.Repeat("x", 9<<10) + `"`, strings.Repeat("B,", 17), "Bearer " + strings.Repeat("a=b,", 40),
	} {
		if got, err := oauth.ParseChallenges([]string{in}); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%.60q: got %v, %v", in, got, err)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{`Bearer error="a", b=c`, `Basic realm="x\"y", Negotiate abc==`, `,`, `Bearer a = b`, `X y=, Z`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := oauth.ParseChallenges([]string{s})
		if err != nil {
			return
		}
		var fields []string
		for _, c := range first {
			for _, p := range c.Params {
				if strings.ContainsFunc(p.Value, func(r rune) bool { return r < ' ' || r > '~' }) {
					return // String replaces those
				}
			}
			if strings.ContainsAny(c.String(), "\r\n") {
				t.Fatalf("%q splits a header", c)
			}
			fields = append(fields, c.String())
		}
		if len(strings.Join(fields, ",")) > 8<<10 {
			return // quoting made it longer than what is read
		}
		second, err := oauth.ParseChallenges(fields)
		if diff := cmp.Diff(first, second); diff != "" || err != nil {
			t.Fatalf("%q: %v\n%s", fields, err, diff)
		}
	})
}
