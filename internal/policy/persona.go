package policy

import (
	"slices"
	"sync"

	cedar "github.com/cedar-policy/cedar-go"

	"frontdesk.dev/frontdesk/internal/identity"
)

// persona is what a caller is in Cedar's terms. It is half the work of a decision, and the same at each of his.
type persona struct {
	of      identity.Caller // as he was when this was made
	entity  cedar.Entity
	actors  cedar.Set
	scopes  cedar.Set
	session cedar.Record
}

func newPersona(c *identity.Caller) *persona {
	parents := make([]cedar.EntityUID, 0, len(c.Groups))
	for _, g := range c.Groups {
		parents = append(parents, cedar.NewEntityUID("Group", cedar.String(g)))
	}
	session := cedar.RecordMap{"amr": stringSet(c.Auth.AMR)}
	if c.Auth.ACR != "" {
		session["acr"] = cedar.String(c.Auth.ACR)
	}
	if !c.Auth.Time.IsZero() {
		session["auth_time"] = cedar.NewDatetime(c.Auth.Time)
	}
	p := &persona{
		entity: cedar.Entity{
			UID:     principalUID(c),
			Parents: cedar.NewEntityUIDSet(parents...),
			Attributes: cedar.NewRecord(cedar.RecordMap{
				"name": cedar.String(c.Name), "idp": cedar.String(c.IDP), "subject": cedar.String(c.Subject),
			}),
		},
		actors: stringSet(c.Actors), scopes: stringSet(c.Scopes), session: cedar.NewRecord(session),
	}
	p.of = *c
	p.of.Groups, p.of.Actors, p.of.Scopes, p.of.Auth.AMR = slices.Clone(c.Groups), slices.Clone(c.Actors), slices.Clone(c.Scopes), slices.Clone(c.Auth.AMR)
	return p
}

// still reports whether the caller is as he was, in all that this was made of.
func (p *persona) still(c *identity.Caller) bool {
	o := &p.of
	return o.User == c.User && o.Service == c.Service && o.Name == c.Name && o.IDP == c.IDP && o.Subject == c.Subject &&
		slices.Equal(o.Groups, c.Groups) && slices.Equal(o.Actors, c.Actors) && slices.Equal(o.Scopes, c.Scopes) &&
		o.Auth.ACR == c.Auth.ACR && o.Auth.Time.Equal(c.Auth.Time) && slices.Equal(o.Auth.AMR, c.Auth.AMR)
}

// personas remembers them by the caller of a verified token, in two generations, so it is bounded. It is believed only where the
// caller is still the same in every field, so what stands in it cannot be of somebody else, nor out of date.
type personas struct {
	mu         sync.RWMutex
	young, old map[*identity.Caller]*persona
}

const mostPersonas = 5000 // in one generation

func (s *personas) of(c *identity.Caller) *persona {
	s.mu.RLock()
	p, young := s.young[c]
	if !young {
		p = s.old[c]
	}
	s.mu.RUnlock()
	known := p != nil && p.still(c)
	if known && young {
		return p
	}
	if !known {
		p = newPersona(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil || len(s.young) >= mostPersonas {
		s.young, s.old = map[*identity.Caller]*persona{}, s.young
	}
	s.young[c] = p
	return p
}
