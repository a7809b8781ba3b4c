package signals

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
)

// Event types that are acted on; every other is accepted, and changes nothing.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"

	sessionRevoked   = caep + "session-revoked"
	credentialChange = caep + "credential-change"
	sessionsRevoked  = risc + "sessions-revoked"
	accountDisabled  = risc + "account-disabled"
	accountPurged    = risc + "account-purged"
	accountEnabled   = risc + "account-enabled"
)

// everySession is in the place of a session's id where Keycloak means all of the user's.
const everySession = "ALL"

const (
	maxEventAge = 7 * 24 * time.Hour // transmitters try for days
	keepEvents  = maxEventAge + 24*time.Hour
)

// refusal is an answer of RFC 8935 section 2.3.
type refusal struct{ code, words string }

func (r *refusal) Error() string { return r.code + ": " + r.words }

// push takes one security event token (RFC 8935 section 2). 202 is said when what it asks for has been done, and of a token
// that came before too; 400 that it will never be; anything else that it may be tried again.
func (s *Receiver) push(w http.ResponseWriter, r *http.Request) {
	err := s.pushed(r)
	if err == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	s.Log.Warn("a security event was not acted on", "idp", s.IDP.Name, "error", err)
	if no, ok := errors.AsType[*refusal](err); ok {
		answer(w, http.StatusBadRequest, map[string]string{"err": no.code, "description": no.words})
		return
	}
	w.Header().Set("Retry-After", "5")
	answer(w, http.StatusServiceUnavailable, map[string]string{"description": "this cannot be done now; try again"})
}

func (s *Receiver) pushed(r *http.Request) error {
	if !bears(r, s.Events.Token) {
		return &refusal{"authentication_failed", "the bearer token is missing or wrong"}
	}
	if !isType(r, "application/secevent+jwt") {
		return &refusal{"invalid_request", "the content type is application/secevent+jwt"}
	}
	body, err := io.ReadAll(r.Body)
	if tooLarge(err) {
		return &refusal{"invalid_request", "the token is too long"}
	}
	if err != nil {
		return err
	}
	return s.take(r.Context(), strings.TrimSpace(string(body)), "")
}

// event is what a verified token says.
type event struct {
	id      string
	kind    string
	at      time.Time // until when what there was ends
	said    time.Time // when it happened, by the IdP's clock: the order of events, which may come in another
	change  string    // of credential-change
	state   string    // of verification
	status  string    // of stream-updated
	subject subject
}

// subject is RFC 9493, and of SSF the complex subject with a user and a session in it.
type subject struct {
	Format  string   `json:"format"`
	Issuer  string   `json:"iss"`
	Subject string   `json:"sub"`
	Email   string   `json:"email"`
	ID      string   `json:"id"`
	User    *subject `json:"user"`
	Session *subject `json:"session"`
}

// readEvent verifies a security event token (RFC 8417 section 2; SSF 1.0 section 4): typ, no sub, no exp, one event.
func (s *Receiver) readEvent(ctx context.Context, token string) (event, error) {
	if iss, err := jwt.UnverifiedIssuer(token); err == nil && iss != s.Events.Issuer {
		return event{}, &refusal{"invalid_issuer", "the token is from another issuer"}
	}
	claims, err := jwt.Verify(ctx, token, s.Events.Keys, jwt.Expect{Issuer: s.Events.Issuer, Audiences: []string{s.Events.Audience}, ManyAudiences: true, Types: []string{jwt.TypeSecurityEvent},
		Absent: []string{"sub", "exp", "nonce"}, Now: s.Now(), Leeway: jwt.MaxLeeway, MaxAge: maxEventAge})
	switch {
	case errors.Is(err, jwt.ErrAudience):
		return event{}, &refusal{"invalid_audience", fault.Message(err)}
	case errors.Is(err, jwt.ErrSignature):
		return event{}, &refusal{"invalid_key", fault.Message(err)}
	case fault.KindOf(err) == fault.Unauthenticated && err != nil:
		return event{}, &refusal{"invalid_request", fault.Message(err)}
	case err != nil:
		return event{}, err
	}
	var k struct {
		Subject jsontext.Value            `json:"sub_id"`
		Events  map[string]jsontext.Value `json:"events"`
	}
	if claims.Decode(&k) != nil || len(k.Events) != 1 || claims.ID == "" || len(claims.ID) > maxID {
		return event{}, &refusal{"invalid_request", "the token holds not one event with a jti"}
	}
	e := event{id: claims.ID, at: claims.IssuedAt}
	for kind, payload := range k.Events {
		var p struct {
			Timestamp *float64 `json:"event_timestamp"`
			Change    string   `json:"change_type"`
			State     string   `json:"state"`
			Status    string   `json:"status"`
		}
		if json.Unmarshal(payload, &p) != nil || payload.Kind() != '{' {
			return event{}, &refusal{"invalid_request", "the event is malformed"}
		}
		e.state, e.status = p.State, p.Status
		if e.kind, e.change = kind, p.Change; p.Timestamp != nil && *p.Timestamp > 0 && *p.Timestamp < 1<<40 {
			e.at = time.Unix(int64(*p.Timestamp), 0)
		}
	}
	if k.Subject != nil && json.Unmarshal(k.Subject, &e.subject) != nil {
		return event{}, &refusal{"invalid_request", "the subject is malformed"}
	}
	if e.said = e.at; e.said.After(s.Now()) {
		e.said = s.Now()
	}
	if s.Now().Sub(e.at) < jwt.MaxLeeway { // clocks disagree that much: what began just before it must not escape
		e.at = s.Now()
	}
	return e, nil
}

// act does what the event asks for. What it names and nobody knows is done already.
func (s *Receiver) act(ctx context.Context, e event) error {
	switch e.kind {
	case sessionRevoked, sessionsRevoked, accountDisabled, accountPurged, accountEnabled:
	case verification:
		return s.verified(ctx, e)
	case streamUpdated:
		s.Log.Warn("the IdP has changed the stream of security events", "idp", s.IDP.Name, "status", e.status)
		return nil
	case credentialChange:
		if e.change == "create" { // a further key takes nothing from what was proved before
			return nil
		}
	default:
		return nil
	}
	why := e.kind[strings.LastIndexByte(e.kind, '/')+1:] + " at the IdP"
	who := e.subject
	if who.Format == "complex" {
		if sid := who.Session; e.kind == sessionRevoked && sid != nil && (sid.Format != "opaque" || sid.ID != everySession) {
			if sid.Format != "opaque" || sid.ID == "" || len(sid.ID) > maxID {
				return &refusal{"invalid_request", "the session is named in a way that is not understood"}
			}
			return s.Office.SignIn(ctx, s.Tenant, s.IDP.Name, sid.ID, why)
		}
		if who.User == nil {
			return &refusal{"invalid_request", "the subject names no user"}
		}
		who = *who.User
	}
	l, err := s.find(ctx, who)
	for _, u := range l {
		err = errors.Join(err, s.end(ctx, u, e, why))
	}
	return err
}

func (s *Receiver) end(ctx context.Context, u identity.User, e event, why string) (err error) {
	switch e.kind {
	case accountEnabled:
		if u.Gone == identity.Deleted { // for that it takes the directory's own word
			return nil
		}
		return s.Office.Return(ctx, u, e.said, why)
	case accountDisabled:
		err = s.Office.Depart(ctx, u, identity.Disabled, e.said, why)
	case accountPurged:
		return s.Office.Depart(ctx, u, identity.Deleted, e.said, why)
	default:
		err = s.Office.Access(ctx, s.Tenant, ending.Whose{User: u.ID}, e.at, why)
	}
	if err == nil && s.Events.Revoke {
		_, err = s.Office.Revoke(ctx, s.Tenant, ending.Whose{User: u.ID}, why)
	}
	return err
}

// find says who is meant. An address names somebody only where the config says that the IdP's addresses are its own.
func (s *Receiver) find(ctx context.Context, who subject) ([]identity.User, error) {
	switch {
	case who.Format == "iss_sub" && who.Issuer == s.IDP.Issuer && who.Subject != "" && len(who.Subject) <= maxID:
		u, err := s.People.UserBySubject(ctx, s.Tenant, s.IDP.Name, who.Subject)
		if err != nil && fault.KindOf(err) == fault.NotFound {
			return nil, nil
		}
		return []identity.User{u}, err
	case who.Format == "email" && s.Events.Email && who.Email != "" && len(who.Email) <= maxID:
		return s.People.UsersByEmail(ctx, s.Tenant, s.IDP.Name, who.Email)
	}
	return nil, &refusal{"invalid_request", "the subject is named in a way that is not understood or not allowed here"}
}
