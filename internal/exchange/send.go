package exchange

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// Sender sends a request (broker.Sender).
type Sender interface {
	RoundTrip(r *http.Request) (*http.Response, error)
}

// youngest is how old a token is before a vendor's word that it has expired is believed: one that is refused right after it
// was given out is refused for another reason, and to renew it again would only burn tokens.
const youngest = time.Minute

// again is how a credential that its vendor calls expired is replaced.
type again struct {
	expired []catalog.Expired
	rules   *catalog.Provider // what its API says of a token that is dead; nil: as RFC 6750
	renew   func(context.Context) (*Credential, error)
	next    atomic.Pointer[Credential] // what took its place
}

// Send places the credential and sends the request, and reads in the answer what a person has to do: a scope that is missing, or
// a token that is dead and cannot be renewed, is a *catalog.Needed in the answer's place.
func (c *Credential) Send(out Sender, r *http.Request) (*http.Response, [][]byte, error) {
	resp, marks, err := c.send(out, r)
	if err != nil || c.reads == nil {
		return resp, marks, err
	}
	if needed := c.reads(resp); needed != nil {
		return nil, nil, errors.Join(needed, resp.Body.Close())
	}
	return resp, marks, nil
}

// send is Send without the last look. Where the vendor says that it has expired before its time (a clock that
// is wrong, a sibling's renewal), it is renewed, and a request that can be repeated without harm is sent once more. The marks
// are what must never be seen in the answer.
func (c *Credential) send(out Sender, r *http.Request) (*http.Response, [][]byte, error) {
	if c.again == nil {
		resp, err := c.once(out, r)
		if err == nil {
			err = c.speak(r, resp)
		}
		return resp, c.Marks, err
	}
	if next := c.again.next.Load(); next != nil {
		return next.send(out, r)
	}
	second := repeatable(r) // before the first one changes it
	resp, err := c.once(out, r)
	if err != nil || !c.again.says(resp) {
		return resp, c.Marks, err
	}
	next, rerr := c.again.renew(r.Context())
	if rerr != nil || second == nil {
		if rerr == nil {
			c.again.next.Store(next)
		}
		return resp, c.Marks, nil // the vendor's own answer: what can be done about it is shown at the next call
	}
	c.again.next.Store(next)
	_ = resp.Body.Close() // it was read as far as it matters
	resp, err = next.once(out, second)
	return resp, slices.Concat(c.Marks, next.Marks), err
}

// once places the credential and sends the request.
func (c *Credential) once(out Sender, r *http.Request) (*http.Response, error) {
	if c.onto != nil {
		if err := c.onto(r); err != nil {
			return nil, err
		}
	}
	if c.proof != nil {
		return c.proof.Send(r, out.RoundTrip)
	}
	if err := c.Place(r); err != nil {
		return nil, err
	}
	return out.RoundTrip(r)
}

// says reports whether the answer calls the token expired, by the vendor's rules, else by RFC 6750 section 3.1. The body stays
// as it was.
func (a *again) says(resp *http.Response) bool {
	challenge := strings.Join(resp.Header.Values("WWW-Authenticate"), ", ")
	if a.rules != nil {
		if means, _ := meaning(a.rules, resp, nil); means != "" && means != catalog.MeansDead {
			return false // it only looks like a token that has ended
		} else if means == catalog.MeansDead && len(a.rules.Signals) > 0 {
			return true
		}
	}
	if len(a.expired) == 0 {
		return resp.StatusCode == http.StatusUnauthorized && strings.Contains(challenge, `error="invalid_token"`)
	}
	return slices.ContainsFunc(a.expired, func(e catalog.Expired) bool {
		return e.Status == resp.StatusCode && strings.Contains(challenge, e.Header) && (e.Body == "" || strings.Contains(head(resp), e.Body))
	})
}

// meaning is what the answer says by the vendor's rules. Bodies of streams are never looked into.
func meaning(p *catalog.Provider, resp *http.Response, have []string) (catalog.Meaning, []string) {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 || resp.StatusCode >= 500 {
		return "", nil
	}
	return p.Says(resp.StatusCode, resp.Header, func() []byte {
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			return nil
		}
		if b := outbound.Peek(resp, catalog.SignalBody+1); len(b) <= catalog.SignalBody {
			return b
		}
		return nil
	}, have)
}

// head is the beginning of the body, which is put back.
func head(resp *http.Response) string { return string(outbound.Peek(resp, catalog.ExpiredBody)) }

// repeatable is a copy of the request to send again, nil where that could do harm, or its body is gone: of the methods that
// RFC 9110 section 9.2.2 calls idempotent, and without a body or with one that can be had again.
func repeatable(r *http.Request) *http.Request {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
	default:
		return nil
	}
	second := r.Clone(r.Context())
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return second
	case r.GetBody == nil:
		return nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil
	}
	second.Body = body
	return second
}
