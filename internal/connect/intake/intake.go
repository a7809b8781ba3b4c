// Package intake takes over connections that people have already made elsewhere: in another vault, or in a program of the
// operator's own.
//
// What it gets is a file full of credentials, unread by whoever handed it on: it is the one that reads it, and none of what it
// answers holds anything secret. It trusts the operator to own what is in the file, and no line of it beyond its form: people are
// those that identity knows, upstreams those of the config, and a credential is tried at its vendor where that is possible. It
// gives no agent leave to use what it stores: that is the person's, or policy's.
package intake

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Order says how a file is taken in.
type Order struct {
	Tenant    identity.Tenant `json:"tenant"`               // of lines that name none
	Dry       bool            `json:"dry_run,omitempty"`    // look and test, store nothing
	Partial   bool            `json:"partial,omitempty"`    // store what is right, though other lines are wrong
	NewPeople bool            `json:"new_people,omitempty"` // lines may name people by subject who have never signed in
	Replace   bool            `json:"replace,omitempty"`    // also where the person has a connection of that account that works
}

// Report is what became of it. It says nothing that is secret.
type Report struct {
	Dry       bool      `json:"dry_run,omitempty"`
	Lines     int       `json:"lines"`
	Stored    int       `json:"stored"`              // with a dry run: would be
	Untested  int       `json:"untested,omitempty"`  // of these, where the vendor could not be asked
	Uncertain int       `json:"uncertain,omitempty"` // of these, renewed before they are used
	There     int       `json:"there,omitempty"`     // left alone: the person has a connection of that account that works
	Problems  []Problem `json:"problems,omitempty"`
}

// Problem is what is wrong with a line.
type Problem struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// Desk is what intake needs of connect.Desk.
type Desk interface {
	// Account asks the vendor whose credential it is. fault.Invalid where he does not take it, "" where he has no such call.
	Account(ctx context.Context, up *catalog.Upstream, kind catalog.MethodKind, s secret.Text) (id, label string, err error)
	// CheckKey refuses what cannot be a credential for this vendor.
	CheckKey(up *catalog.Upstream, s secret.Text) error
	// Adopt stores a connection in its place among the person's others.
	Adopt(ctx context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error)
}

// Vault reads what is there (vault.Vault).
type Vault interface {
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error)
	Open(ctx context.Context, c vault.Connection) (vault.Secrets, error)
}

// People finds who is meant, and makes known who has never signed in.
type People interface {
	UserBySubject(ctx context.Context, t identity.Tenant, idp, subject string) (identity.User, error)
	UsersByEmail(ctx context.Context, t identity.Tenant, idp, email string) ([]identity.User, error)
	EnsureUser(ctx context.Context, u identity.User) (identity.User, error)
}

// Intake takes connections in. All fields are required.
type Intake struct {
	Desk    Desk
	Vault   Vault
	People  People
	IdPs    *identity.IdPs
	Catalog *catalog.Catalog
	Events  interface {
		Event(ctx context.Context, r audit.Record) error
	}
	Now func() time.Time
}

const (
	// ReasonImported stays with a connection until its vendor has renewed it.
	ReasonImported = "it was imported, and its token had been replaced or ended elsewhere"

	maxProblems = 1000
	atOnce      = 8
)

// Take reads a file and stores what is in it: nothing, unless all of it is right, or the order is for a part. The same file may
// be given again: what is there stays.
func (n *Intake) Take(ctx context.Context, o Order, body []byte) (Report, error) {
	entries, problems := parse(body)
	rep := Report{Dry: o.Dry, Lines: len(entries), Problems: problems}
	if len(entries) == 0 && len(problems) == 0 {
		return rep, fault.New(fault.Invalid, "there is no connection in the file", nil)
	}
	people := map[who]found{}
	var good []*entry
	seen := map[string]int{}
	for _, e := range entries {
		if e.Tenant == "" {
			e.Tenant = o.Tenant
		}
		l, err := n.check(ctx, o, e, people)
		if err != nil {
			return rep, err
		}
		if e.up != nil && e.user.ID != "" {
			if twin := seen[e.place()]; twin > 0 {
				l = append(l, fmt.Sprintf("it is of the same person, service and account as line %d", twin))
			}
			seen[e.place()] = e.line
		}
		for _, what := range l {
			rep.Problems = append(rep.Problems, Problem{e.line, what})
		}
		if len(l) == 0 {
			good = append(good, e)
		}
	}
	slices.SortStableFunc(rep.Problems, func(a, b Problem) int { return a.Line - b.Line })
	if len(rep.Problems) > 0 && !o.Partial {
		rep.Problems = rep.Problems[:min(len(rep.Problems), maxProblems)]
		return rep, nil
	}
	err := n.store(ctx, o, good, &rep)
	slices.SortStableFunc(rep.Problems, func(a, b Problem) int { return a.Line - b.Line })
	rep.Problems = rep.Problems[:min(len(rep.Problems), maxProblems)]
	return rep, err
}

// store tries each at its vendor and stores it. One that the vendor refuses keeps no other one out.
func (n *Intake) store(ctx context.Context, o Order, good []*entry, rep *Report) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, e := range good {
		g.Go(func() error {
			came, err := n.one(ctx, o, e)
			mu.Lock()
			defer mu.Unlock()
			switch k := fault.KindOf(err); {
			case err != nil && (k == fault.Invalid || k == fault.Unavailable || k == fault.Conflict):
				rep.Problems = append(rep.Problems, Problem{e.line, fault.Message(err)})
				return nil
			case err != nil:
				return err
			}
			switch came {
			case there:
				rep.There++
				return nil
			case untested:
				rep.Untested++
			case uncertain:
				rep.Uncertain++
			}
			rep.Stored++
			return nil
		})
	}
	return g.Wait()
}

// outcome is what became of one line.
type outcome int

const (
	tested outcome = iota
	untested
	uncertain
	there
)

func (n *Intake) one(ctx context.Context, o Order, e *entry) (outcome, error) {
	if e.user.ID == "" && !o.Dry {
		u, err := n.People.EnsureUser(ctx, e.user)
		if err != nil {
			return 0, err
		}
		e.user = u
	}
	c := vault.Connection{Tenant: e.Tenant, User: e.user.ID, Upstream: e.up.Name, Method: e.kind, Account: e.Account, Label: e.label(), Scopes: e.scopes, Expires: e.expires,
		Refreshes: e.Refresh != "", Created: n.Now(), Renewed: n.Now(), Status: vault.Active}
	s := vault.Secrets{Access: secret.New(e.Access), Refresh: secret.New(e.Refresh)}
	came, err := n.test(ctx, e, &c, &s)
	if err != nil {
		return 0, err
	}
	left, err := n.leaves(ctx, o, c, s)
	switch {
	case err != nil:
		return 0, err
	case left:
		return there, nil
	case o.Dry:
		return came, nil
	}
	if c, err = n.Desk.Adopt(ctx, c, s); err != nil {
		return 0, err
	}
	return came, n.Events.Event(ctx, audit.Record{Kind: audit.KindEvent, Time: n.Now(), Tenant: c.Tenant, User: c.User, Action: "operator.imported", Upstream: string(c.Upstream),
		Connection: string(c.ID), Obtained: string(c.Method), Result: audit.ResultOK})
}

// notYet stands in the place of an access token that the file does not have. It is never given out: by its expiry it is over.
const notYet = "none before the first renewal"

// test asks the vendor whose credential it is. Where that cannot be done, or what is there is over, a renewal has to show it.
func (n *Intake) test(ctx context.Context, e *entry, c *vault.Connection, s *vault.Secrets) (outcome, error) {
	over := e.Access == "" || !e.expires.IsZero() && !e.expires.After(n.Now())
	renewed := func() (outcome, error) {
		c.Status, c.Reason = vault.Uncertain, ReasonImported
		if e.Access == "" {
			s.Access = secret.New(notYet)
		}
		if e.Access == "" || c.Expires.IsZero() {
			c.Expires = n.Now().Add(-time.Second)
		}
		return uncertain, nil
	}
	if over {
		return renewed() // check saw to it that there is a refresh token
	}
	id, label, err := n.Desk.Account(ctx, e.up, e.kind, s.Access)
	switch {
	case err != nil && c.Refreshes:
		return renewed()
	case err != nil:
		return 0, err
	case id == "" && label == "" && c.Refreshes:
		return renewed()
	case id == "" && label == "":
		return untested, nil
	case e.Account != "" && e.Account != id:
		return 0, fault.New(fault.Invalid, "the credential is of another account than the line says", nil)
	}
	c.Account, c.Label = id, label
	return tested, nil
}

// leaves reports whether what the person has of this account stays: it works, or is this very credential.
func (n *Intake) leaves(ctx context.Context, o Order, c vault.Connection, s vault.Secrets) (bool, error) {
	if c.User == "" {
		return false, nil
	}
	l, err := n.Vault.Connections(ctx, c.Tenant, c.User, c.Upstream)
	if err != nil {
		return false, err
	}
	for _, old := range l {
		if old.Account != c.Account && old.Account != "" && c.Account != "" {
			continue
		}
		if old.Status != vault.NeedsReconnect && !o.Replace {
			return true, nil
		}
		was, err := n.Vault.Open(ctx, old)
		if err == nil && same(was.Access, s.Access) && same(was.Refresh, s.Refresh) {
			return true, nil
		}
	}
	return false, nil
}

func same(a, b secret.Text) bool {
	return subtle.ConstantTimeCompare([]byte(a.Expose()), []byte(b.Expose())) == 1
}

// who is a person as a line names him; found is what came of it.
type who struct {
	tenant         identity.Tenant
	subject, email string
}

type found struct {
	user    identity.User
	problem string
}

func (n *Intake) person(ctx context.Context, o Order, e *entry, people map[who]found) (found, error) {
	key := who{e.Tenant, e.Subject, strings.ToLower(e.Email)}
	if f, ok := people[key]; ok {
		return f, nil
	}
	f, err := n.find(ctx, o, e)
	people[key] = f
	return f, err
}

func (n *Intake) find(ctx context.Context, o Order, e *entry) (found, error) {
	idps := n.IdPs.Of(e.Tenant)
	if len(idps) == 0 {
		return found{problem: "nobody can sign in at its tenant: there is no such tenant, or it has no idp"}, nil
	}
	idp := idps[0].Name
	if e.Subject == "" {
		l, err := n.People.UsersByEmail(ctx, e.Tenant, idp, e.Email)
		switch {
		case err != nil:
			return found{}, err
		case len(l) > 1:
			return found{problem: "several people have this e-mail address; name the one by his subject"}, nil
		case len(l) == 0:
			return found{problem: "nobody with this e-mail address has signed in; name him by his subject at the IdP"}, nil
		}
		return alive(l[0]), nil
	}
	u, err := n.People.UserBySubject(ctx, e.Tenant, idp, e.Subject)
	switch {
	case fault.KindOf(err) == fault.NotFound && o.NewPeople:
		return found{user: identity.User{Tenant: e.Tenant, IDP: idp, Subject: e.Subject, Email: e.Email}}, nil
	case fault.KindOf(err) == fault.NotFound:
		return found{problem: "nobody with this subject has signed in; --new-people takes such lines too"}, nil
	case err != nil:
		return found{}, err
	}
	return alive(u), nil
}

func alive(u identity.User) found {
	if u.Gone != "" {
		return found{problem: "the company has let this person go"}
	}
	return found{user: u}
}
