package signals

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
)

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	logoutLife  = time.Hour
	maxID       = 255
)

var errLogout = fault.New(fault.Invalid, "this is no logout token for us", nil)

// logout takes a logout token (OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8). Whom nobody knows is signed out
// already, and that is a success.
func (s *Receiver) logout(w http.ResponseWriter, r *http.Request) {
	err := s.loggedOut(r)
	if err == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	status, code := http.StatusBadRequest, "invalid_request"
	if k := fault.KindOf(err); k == fault.Unavailable || k == fault.Internal {
		status, code = http.StatusServiceUnavailable, "temporarily_unavailable"
		w.Header().Set("Retry-After", "5")
	}
	s.Log.Warn("a logout of the IdP was not acted on", "idp", s.IDP.Name, "error", err)
	answer(w, status, map[string]string{"error": code, "error_description": fault.Message(err)})
}

func (s *Receiver) loggedOut(r *http.Request) error {
	if !isType(r, "application/x-www-form-urlencoded") {
		return errLogout
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return errLogout
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return errLogout
	}
	sub, sid, id, err := s.readLogout(r.Context(), form.Get("logout_token"))
	if err != nil {
		return err
	}
	key := message("logout", s.IDP.Issuer, id)
	if known, err := s.Messages.KnownMessage(r.Context(), s.Tenant, key); err != nil || known {
		return firstOf(err, fault.New(fault.Invalid, "this logout token was used before", nil))
	}
	if err := s.signOut(r.Context(), sub, sid); err != nil {
		return err
	}
	// Remembered afterwards: one that failed half-way may come again. Of two that race, both ended the same thing.
	first, err := s.Messages.PutMessage(r.Context(), s.Tenant, key, s.Now().Add(keepLogouts))
	if err == nil && !first {
		err = fault.New(fault.Invalid, "this logout token was used before", nil)
	}
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readLogout verifies a logout token (section 2.6). An ID token is none, nor the other way round: typ, events and nonce keep
// them apart.
func (s *Receiver) readLogout(ctx context.Context, token string) (sub, sid, id string, err error) {
	claims, err := jwt.Verify(ctx, token, s.IDP, jwt.Expect{Issuer: s.IDP.Issuer, Audiences: []string{s.IDP.ClientID}, ManyAudiences: true, Types: []string{jwt.TypeLogoutToken},
		Absent: []string{"nonce", "at_hash"}, Now: s.Now(), Leeway: jwt.MaxLeeway, MaxLife: logoutLife})
	if err != nil {
		return "", "", "", err
	}
	var k struct {
		SID    string                    `json:"sid"`
		Events map[string]jsontext.Value `json:"events"`
	}
	var all map[string]jsontext.Value
	if claims.Decode(&k) != nil || claims.Decode(&all) != nil {
		return "", "", "", errLogout
	}
	sub = claims.Subject
	if c := s.IDP.SubjectClaim; c != "" && c != "sub" {
		sub = ""
		if json.Unmarshal(all[c], &sub) != nil && all[c] != nil {
			return "", "", "", errLogout
		}
	}
	if e, ok := k.Events[logoutEvent]; !ok || e.Kind() != '{' || claims.ID == "" || claims.IssuedAt.IsZero() || s.Now().Sub(claims.IssuedAt) > logoutLife ||
		sub == "" && k.SID == "" || len(sub) > maxID || len(k.SID) > maxID || len(claims.ID) > maxID {
		return "", "", "", errLogout
	}
	return sub, k.SID, claims.ID, nil
}

// signOut ends the one sign-in that is named, or without a name all of the person.
func (s *Receiver) signOut(ctx context.Context, sub, sid string) error {
	const why = "signed out at the IdP"
	if sid != "" {
		return s.Office.SignIn(ctx, s.Tenant, s.IDP.Name, sid, why)
	}
	u, err := s.People.UserBySubject(ctx, s.Tenant, s.IDP.Name, sub)
	if fault.KindOf(err) == fault.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Office.Access(ctx, s.Tenant, ending.Whose{User: u.ID}, s.Now(), why)
}

func isType(r *http.Request, want string) bool {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), want)
}

func answer(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who has gone is not told
}

// tooLarge reports whether a body was cut off.
func tooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
