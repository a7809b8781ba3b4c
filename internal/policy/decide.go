package policy

import (
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	cedar "github.com/cedar-policy/cedar-go"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Policies holds the current set of every tenant. The zero Policies says no.
type Policies struct {
	sets atomic.Pointer[map[identity.Tenant]*Set]
}

// Use makes these the current sets; decisions that run keep what they had.
func (p *Policies) Use(sets map[identity.Tenant]*Set) { p.sets.Store(&sets) }

// Set returns the tenant's set, which may be nil and then says no.
func (p *Policies) Set(t identity.Tenant) *Set {
	if m := p.sets.Load(); m != nil {
		return (*m)[t]
	}
	return nil
}

// Decide answers one request.
func (s *Set) Decide(r Request) Decision { return s.decide(r, full) }

// Visible reports whether the caller may see the thing that r names: whether Decide could say yes for some arguments.
func (s *Set) Visible(r Request) bool { return s.decide(r, withoutArgs).Allow }

// VisibleOf asks Visible of many tools.
func (s *Set) VisibleOf(r Request, tools []string) []bool {
	see := make([]bool, len(tools))
	for i, n := range tools {
		r.Tool = n
		see[i] = s.Visible(r)
	}
	return see
}

// Reaches reports whether any policy could let the caller call anything at the server: whether it exists for him.
func (s *Set) Reaches(c *identity.Caller, server string) bool {
	if c.Principal() == "" {
		return false
	}
	return slices.ContainsFunc(s.candidates(server), func(e *entry) bool {
		return !e.forbid && e.principal.matches(c) && e.about(ActionCall)
	})
}

// Arguments names the arguments that a policy for this server could read: those, and no others, belong in
// Request.Arguments.
func (s *Set) Arguments(server string) []string {
	var names []string
	for _, e := range s.candidates(server) {
		for _, a := range e.args {
			if !slices.Contains(names, a) {
				names = append(names, a)
			}
		}
	}
	return names
}

func (e *entry) about(a Action) bool { return e.actions == nil || slices.Contains(e.actions, a) }

type mode bool

const (
	full        mode = false
	withoutArgs mode = true
)

// matching is the part of a set that one request has to be decided by.
type matching struct {
	entries []*entry
	mode    mode
	request *Request
}

// All makes matching a cedar.PolicyIterator.
func (m *matching) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for e := range m.each() {
			p := e.policy
			if m.mode == withoutArgs {
				p = e.visible
			}
			if p != nil && !yield(e.id, p) {
				return
			}
		}
	}
}

// each lists the policies whose heads can match.
func (m *matching) each() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, e := range m.entries {
			if e.about(m.request.Action) && (e.upstream == "" || e.upstream == m.request.Upstream) && e.principal.matches(m.request.Caller) && !yield(e) {
				return
			}
		}
	}
}

func (s *Set) decide(r Request, m mode) Decision {
	d := s.strictly(r, m)
	if !d.Allow && r.Observe && r.Caller != nil && s.Reaches(r.Caller, r.Server) {
		d.Allow, d.WouldDeny = true, true
	}
	return d
}

// strictly decides without regard to Observe. Of a path with a semicolon nobody here knows what the API makes: either reading has to be
// allowed.
func (s *Set) strictly(r Request, m mode) Decision {
	d := s.once(r, m)
	plain := catalog.WithoutParameters(r.Path)
	if !d.Allow || r.Action != ActionAPI || plain == r.Path {
		return d
	}
	if r.Path = plain; r.Content != nil && r.Content.Segments != nil {
		c := *r.Content
		c.Segments = strings.Split(strings.TrimPrefix(plain, "/"), "/")
		r.Content = &c
	}
	other := s.once(r, m)
	if other.Allow {
		other.Masks = append(other.Masks, d.Masks...)
	}
	return other
}

// once decides one reading of a request.
func (s *Set) once(r Request, m mode) Decision {
	if r.Caller == nil || r.Caller.Principal() == "" {
		return Decision{Reason: "nobody is asking"}
	}
	if s == nil {
		return Decision{Reason: "no policy allows it"}
	}
	world, req, err := entities(&r, s.personas.of(r.Caller))
	if err != nil {
		return Decision{Errors: []string{err.Error()}, Reason: "an argument that a policy reads has no exact value"}
	}
	match := matching{entries: s.candidates(r.Server), mode: m, request: &r}
	answer, diag := cedar.Authorize(&match, world, req)
	d := Decision{Allow: answer == cedar.Allow && len(diag.Errors) == 0}
	for _, e := range diag.Errors {
		d.Errors = append(d.Errors, string(e.PolicyID)+": "+e.Message)
	}
	for _, why := range diag.Reasons {
		d.Policies = append(d.Policies, string(why.PolicyID))
	}
	if d.Allow && r.Action == ActionAPI {
		d.Masks = s.masks(r.Server, d.Policies)
	}
	if !d.Allow {
		d.Reason = s.reason(r.Server, d)
		if r.Content != nil && r.Content.Unread != "" && len(d.Errors) > 0 {
			d.Reason = "policy has to look into this request, and " + r.Content.Unread
		}
	}
	return d
}

// masks joins those of the policies that said yes.
func (s *Set) masks(server string, ids []string) (all []string) {
	for _, e := range s.candidates(server) {
		if len(e.masks) > 0 && slices.Contains(ids, string(e.id)) {
			all = append(all, e.masks...)
		}
	}
	return all
}

// reason is the sentence for the caller: what a forbid says of itself where it says something.
func (s *Set) reason(server string, d Decision) string {
	if len(d.Errors) > 0 {
		return "a policy could not be evaluated, and that is a no; an operator can see which one in the audit log"
	}
	if len(d.Policies) == 0 {
		return "no policy allows it"
	}
	for _, e := range s.candidates(server) {
		if string(e.id) == d.Policies[0] && e.reason != "" {
			return e.reason
		}
	}
	return "a policy forbids it"
}

// Forbids lists the policies that forbid r, without asking whether any permits it; one that errs counts.
func (s *Set) Forbids(r Request) []string {
	d := s.strictly(r, full)
	if d.Allow || r.Observe || (len(d.Policies) == 0 && len(d.Errors) == 0) {
		return nil
	}
	return append(d.Policies, d.Errors...)
}
