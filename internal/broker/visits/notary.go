package visits

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Signer signs access tokens of our issuer (keyring.Signer).
type Signer interface {
	Sign(ctx context.Context, t identity.Tenant, typ string, claims []byte) (string, error)
}

// Log records (audit.Log).
type Log interface {
	Event(ctx context.Context, r audit.Record) error
}

// Admit implements broker.Notary.
func (d *Desk) Admit(ctx context.Context, v connect.Visitor, a broker.Admission) (string, error) {
	k, err := d.visit(ctx, v)
	if err != nil {
		return "", err
	}
	if err := d.People.Consent(ctx, v, a.Client, a.Server); err != nil {
		return "", err
	}
	now := d.Now()
	text, err := write(ctx, d.MAC, aStanding, standing{Tenant: k.Tenant, User: k.User, Client: a.Client, Resource: d.URL(k.Tenant, "/mcp/"+string(a.Server.Name)), Family: a.Family,
		IDP: k.IDP, SID: k.SID, Auth: k.Auth, Given: now, Ends: Later(k.Ends, k.Agents)})
	if err != nil {
		return "", err
	}
	return text, d.Log.Event(ctx, audit.Record{Kind: audit.KindEvent, Time: now, Tenant: k.Tenant, User: k.User, Client: a.Client, Action: "client.allowed",
		Server: string(a.Server.Name), Result: audit.ResultOK})
}

// What a token may say of its times: it is issued now, as far as two clocks agree, and lives for minutes. What it counts as begun may be
// earlier, when its person was last known to be let in.
const (
	skew     = time.Minute
	maxToken = 10 * time.Minute
)

// Sign implements broker.Notary.
func (d *Desk) Sign(ctx context.Context, t identity.Tenant, text string, c identity.AccessClaims) (string, error) {
	if text != "" || !d.Together {
		if err := d.stands(ctx, t, text, c); err != nil {
			return "", err
		}
	}
	claims, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return d.Signer.Sign(ctx, t, identity.AccessType, claims)
}

// stands reports whether the claims are those of a client that a person has let in, and nothing has ended that since.
func (d *Desk) stands(ctx context.Context, t identity.Tenant, text string, c identity.AccessClaims) error {
	var k standing
	ok, err := read(ctx, d.MAC, aStanding, text, &k)
	if err != nil {
		return err
	}
	now, begins, ends := d.Now(), time.UnixMicro(c.Micros), time.Unix(c.Expires, 0)
	switch {
	case !ok || k.Tenant != t || k.User != c.Subject || k.Client != c.Client || k.Resource != c.Audience || k.Family != c.Family || c.Issuer != d.URL(t, ""),
		c.ACR != k.Auth.ACR || !slices.Equal(c.AMR, k.Auth.AMR) || c.AuthTime != 0 && c.AuthTime != k.Auth.Time.Unix(),
		begins.Sub(now) > skew || now.Sub(begins) > maxToken || time.Unix(c.IssuedAt, 0).Sub(now).Abs() > skew || ends.Sub(now) > maxToken,
		!now.Before(k.Ends), !d.Epochs.SignIn(t, k.IDP, k.SID),
		!d.Epochs.Alive(&identity.Caller{Tenant: t, User: k.User, Client: k.Client, Family: k.Family, Issued: k.Given}):
		return errStanding
	}
	if d.Together {
		return nil
	}
	err = d.Flows.Renew(ctx, t, k.User, k.IDP)
	if fault.KindOf(err) == fault.NotFound && now.Before(k.Given.Add(Life)) {
		err = nil // nobody can be asked, and nobody need be
	}
	return err
}

// recorded are the events that faces make; every other is the broker's side's own to write.
var recorded = []string{"sign_in.ended"}

// Record implements broker.Notary.
func (d *Desk) Record(ctx context.Context, r audit.Record) error {
	if r.Kind != audit.KindEvent || !slices.Contains(recorded, r.Action) || r.Time.Sub(d.Now()).Abs() > skew {
		return fault.New(fault.Denied, "faces record no such thing", nil)
	}
	return d.Log.Event(ctx, r)
}
