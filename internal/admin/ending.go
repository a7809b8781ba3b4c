package admin

import (
	"context"
	"net/http"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Ends is how many things end at once. All fields are required.
type Ends struct {
	Office  Office
	Endings Endings
}

// Office ends them (ending.Office).
type Office interface {
	Revoke(ctx context.Context, t identity.Tenant, w ending.Whose, why string) (int, error)
	Access(ctx context.Context, t identity.Tenant, w ending.Whose, until time.Time, why string) error
	Progress(ctx context.Context, t identity.Tenant) (ending.Progress, error)
}

// Endings lists what vendors have not confirmed.
type Endings interface {
	// Endings lists those that are tried first, then those that were given up.
	Endings(ctx context.Context, t identity.Tenant, limit int) ([]vault.Ending, error)
}

// Order says whose connections or access end: one of its fields is set.
type Order struct {
	User     string `json:"user,omitempty"` // id, subject, name or e-mail of one person
	Client   string `json:"client,omitempty"`
	Server   string `json:"server,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	All      bool   `json:"all,omitempty"`
}

const byOperator = "ended by an operator"

// whose reads an order. A person has to be one: who is meant by a name that two have is not ours to guess.
func (a *API) whose(r *http.Request) (ending.Whose, error) {
	var o Order
	if err := jsonv2.UnmarshalRead(r.Body, &o, jsonv2.RejectUnknownMembers(true)); err != nil {
		return ending.Whose{}, fault.New(fault.Invalid, "the order is not JSON, or has a member that there is not", err)
	}
	w := ending.Whose{Client: identity.ClientID(o.Client), Server: catalog.ServerName(o.Server), Upstream: catalog.UpstreamName(o.Upstream), All: o.All}
	if o.User == "" {
		return w, nil
	}
	l, err := a.People.FindUsers(r.Context(), tenant(r), o.User)
	switch {
	case err != nil:
		return w, err
	case len(l) == 0:
		return w, fault.New(fault.NotFound, "nobody of that id, subject, name or e-mail has signed in", nil)
	case len(l) > 1:
		return w, fault.New(fault.Conflict, "several users are called "+o.User+"; give the id or the subject", nil)
	}
	w.User = l[0].ID
	return w, nil
}

// Ended is what an order did here.
type Ended struct {
	Connections int             `json:"connections"`
	Progress    ending.Progress `json:"progress"`
}

func (a *API) revokeAll(r *http.Request) (any, error) {
	w, err := a.whose(r)
	if err != nil {
		return nil, err
	}
	n, err := a.Office.Revoke(r.Context(), tenant(r), w, byOperator)
	if err != nil {
		return nil, err
	}
	p, err := a.Office.Progress(r.Context(), tenant(r))
	return Ended{n, p}, err
}

func (a *API) endAccess(r *http.Request) (any, error) {
	w, err := a.whose(r)
	if err != nil {
		return nil, err
	}
	return map[string]string{"ended": w.String()}, a.Office.Access(r.Context(), tenant(r), w, a.Now(), byOperator)
}

// Ending is what a vendor has not confirmed, as operators see it.
type Ending struct {
	Connection vault.ConnectionID `json:"connection"`
	User       identity.UserID    `json:"user"`
	Upstream   string             `json:"upstream"`
	Since      time.Time          `json:"since"`
	Tries      int                `json:"tries"`
	Next       time.Time          `json:"next,omitzero"`     // when it is tried again
	GivenUp    time.Time          `json:"given_up,omitzero"` // to be ended at the vendor by hand
	Why        string             `json:"why,omitempty"`
}

// Unconfirmed is how far the endings are, and the first of them.
type Unconfirmed struct {
	Progress ending.Progress `json:"progress"`
	Endings  []Ending        `json:"endings"`
}

const maxEndings = 1000

func (a *API) endings(r *http.Request) (any, error) {
	p, err := a.Office.Progress(r.Context(), tenant(r))
	if err != nil {
		return nil, err
	}
	l, err := a.Endings.Endings(r.Context(), tenant(r), maxEndings)
	out := Unconfirmed{Progress: p, Endings: make([]Ending, len(l))}
	for i, e := range l {
		out.Endings[i] = Ending{Connection: e.Connection, User: e.User, Upstream: string(e.Upstream), Since: e.Created, Tries: e.Tries, Next: e.Next, GivenUp: e.GivenUp, Why: e.Why}
		if !e.GivenUp.IsZero() {
			out.Endings[i].Next = time.Time{}
		}
	}
	return out, err
}
