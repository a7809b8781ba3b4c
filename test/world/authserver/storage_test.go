package authserver

import (
	"testing"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Two redemptions of one code that both looked it up before either got its tokens: over HTTP this is a matter of luck,
// so the storage is asked in that order.
func TestOneCodeTwoRedemptions(t *testing.T) {
	s, err := New(Config{Issuer: "http://127.0.0.1:1", Users: []User{{Name: "alice"}}, Clients: []Client{{ID: "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	st := &storage{s}
	req, err := st.CreateAuthRequest(ctx, &oidc.AuthRequest{ClientID: "c", CodeChallenge: "x", CodeChallengeMethod: "S256"}, "")
	if err != nil {
		t.Fatal(err)
	}
	s.requests[req.GetID()].subject = "alice"
	if err := st.SaveAuthCode(ctx, req.GetID(), "code"); err != nil {
		t.Fatal(err)
	}
	if err := st.SaveAuthCode(ctx, req.GetID(), "another"); err == nil {
		t.Error("one sign-in gave two codes")
	}
	one, err := st.AuthRequestByCode(ctx, "code")
	if err != nil {
		t.Fatal(err)
	}
	two, err := st.AuthRequestByCode(ctx, "code")
	if err != nil {
		t.Fatal(err)
	}
	_, refresh, _, err := st.CreateAccessAndRefreshTokens(ctx, one, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := st.CreateAccessAndRefreshTokens(ctx, two, ""); err == nil {
		t.Error("the second redemption got tokens")
	}
	if _, err := st.TokenRequestByRefreshToken(ctx, refresh); err == nil {
		t.Error("what the first redemption got outlived the second")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, issuer := range []string{"", "not a url", "/path"} {
		if _, err := New(Config{Issuer: issuer}); err == nil {
			t.Errorf("issuer %q was taken", issuer)
		}
	}
}
