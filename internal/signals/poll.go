package signals

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// Stream is a stream of security events at its transmitter: asked for (RFC 8936), or looked after while it pushes.
type Stream struct {
	Poll  string                 // URL of the poll endpoint; "" where it pushes
	ID    string                 // stream_id; "" where nobody looks after it
	Token func() (string, error) // bearer token that we present
	Facts *oauth.Transmitter     // where its endpoints are
	HTTP  http.RoundTripper
	Turns Turns
	Owner string

	short time.Duration // tests: instead of every pause
}

// Turns lets one replica ask at a time.
type Turns interface {
	Turn(ctx context.Context, chore, owner string, d time.Duration) (bool, error)
}

const (
	pollAtOnce  = 100
	pollPause   = 2 * time.Second // between two that gave nothing, where the transmitter does not wait by itself
	pollTimeout = 30 * time.Second
	pollTurn    = 45 * time.Second // longer than one poll: who dies is followed by another one after that
	pollBackoff = 5 * time.Second

	lookAfterEvery = 10 * time.Minute
	verifyWithin   = 30 * time.Second
	maxPolled      = 8 << 20

	verification  = "https://schemas.openid.net/secevent/ssf/event-type/verification"
	streamUpdated = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
)

// Run asks for events, and looks after the stream, until ctx ends. It ends at once where there is nothing of the kind.
func (s *Receiver) Run(ctx context.Context) {
	if s.Events == nil || s.Events.Stream == nil {
		return
	}
	var g sync.WaitGroup
	if s.Events.Stream.Poll != "" {
		g.Go(func() { s.poll(ctx) })
	}
	if s.Events.Stream.ID != "" {
		g.Go(func() { s.lookAfter(ctx) })
	}
	g.Wait()
}

// poll asks again and again. What was acted on is acknowledged with the next question; a process that dies in between gets it
// again, and it counts once.
func (s *Receiver) poll(ctx context.Context) {
	st, chore := s.Events.Stream, "poll:"+string(s.Tenant)+":"+s.IDP.Name
	defer func() { _, _ = st.Turns.Turn(context.WithoutCancel(ctx), chore, st.Owner, 0) }() // the next one need not wait; where that fails it does
	next := question{Max: pollAtOnce}
	failing := false
	for ctx.Err() == nil {
		ours, err := st.Turns.Turn(ctx, chore, st.Owner, pollTurn)
		if err == nil && !ours { // another replica asks
			sleep(ctx, st.pause(pollBackoff))
			continue
		}
		var got polled
		if err == nil {
			got, err = s.ask(ctx, next)
		}
		if err != nil {
			if !failing && ctx.Err() == nil {
				s.Log.Error("security events cannot be asked for; it is tried again", "idp", s.IDP.Name, "error", err)
			}
			failing = true
			sleep(ctx, st.pause(pollPause))
			continue
		}
		if failing {
			s.Log.Info("security events are asked for again", "idp", s.IDP.Name)
		}
		failing = false
		next = s.heard(ctx, got)
		if len(got.Sets) == 0 && !got.More {
			sleep(ctx, st.pause(pollPause))
		}
	}
}

func (st *Stream) pause(d time.Duration) time.Duration {
	return cmp.Or(st.short, d)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// question is the body of a poll (RFC 8936 section 2.4), polled its answer.
type question struct {
	Max    int                    `json:"maxEvents"`
	AtOnce bool                   `json:"returnImmediately"`
	Ack    []string               `json:"ack,omitempty"`
	Errors map[string]eventRefuse `json:"setErrs,omitempty"`
}

type eventRefuse struct {
	Code  string `json:"err"`
	Words string `json:"description"`
}

type polled struct {
	Sets map[string]string `json:"sets"`
	More bool              `json:"moreAvailable"`
}

// ask sends one poll. The transmitter holds it until there is something, or not.
func (s *Receiver) ask(ctx context.Context, q question) (polled, error) {
	var p polled
	wait, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	err := s.Events.Stream.send(wait, http.MethodPost, s.Events.Stream.Poll, q, &p)
	if err != nil && errors.Is(wait.Err(), context.DeadlineExceeded) && len(q.Ack)+len(q.Errors) == 0 {
		return polled{}, nil // the transmitter holds it for longer than we do
	}
	return p, err
}

// heard acts on what came. What cannot be acted on just now is not acknowledged, so it comes again.
func (s *Receiver) heard(ctx context.Context, p polled) question {
	next := question{Max: pollAtOnce, AtOnce: p.More || len(p.Sets) > 0}
	for id, token := range p.Sets {
		err := s.take(ctx, token, id)
		no, refused := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			next.Ack = append(next.Ack, id)
			continue
		case refused && len(id) <= maxID:
			if next.Errors == nil {
				next.Errors = map[string]eventRefuse{}
			}
			next.Errors[id] = eventRefuse{no.code, no.words}
		}
		s.Log.Warn("a security event was not acted on", "idp", s.IDP.Name, "error", err)
	}
	return next
}

// take acts on one token, once. id is what the transmitter calls it; "" where it does not say.
func (s *Receiver) take(ctx context.Context, token, id string) error {
	e, err := s.readEvent(ctx, token)
	if err != nil {
		return err
	}
	if id != "" && id != e.id {
		return &refusal{"invalid_request", "the token's jti is not the one that it was sent under"}
	}
	key := message("event", s.Events.Issuer, e.id)
	if known, err := s.Messages.KnownMessage(ctx, s.Tenant, key); err != nil || known {
		return err
	}
	if err := s.act(ctx, e); err != nil {
		return err
	}
	_, err = s.Messages.PutMessage(ctx, s.Tenant, key, s.Now().Add(keepEvents)) // afterwards: one that failed comes again
	return err
}

// lookAfter asks, from time to time, whether the stream is on, and whether what is sent through it arrives (SSF 1.0 sections 8.1.2
// and 8.1.4).
func (s *Receiver) lookAfter(ctx context.Context) {
	st := s.Events.Stream
	for ctx.Err() == nil {
		ours, err := st.Turns.Turn(ctx, "stream:"+string(s.Tenant)+":"+s.IDP.Name, st.Owner, lookAfterEvery)
		switch {
		case err != nil:
			s.Log.Warn("the stream of security events cannot be looked after now", "idp", s.IDP.Name, "error", err)
		case ours:
			s.look(ctx)
		}
		sleep(ctx, st.pause(lookAfterEvery))
	}
}

func (s *Receiver) look(ctx context.Context) {
	if err := s.enabled(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("the stream of security events is not on: until it is, the IdP does not say here whose access has ended", "idp", s.IDP.Name, "stream", s.Events.Stream.ID, "error", err)
		return
	}
	if err := s.verify(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("nothing comes through the stream of security events: the IdP does not say here whose access has ended", "idp", s.IDP.Name, "stream", s.Events.Stream.ID, "error", err)
	}
}

func (s *Receiver) enabled(ctx context.Context) error {
	st := s.Events.Stream
	at, err := st.Facts.Endpoints(ctx)
	if err != nil || at.Status == "" {
		return err
	}
	var is struct {
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	ctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	if err := st.send(ctx, http.MethodGet, at.Status+"?"+url.Values{"stream_id": {st.ID}}.Encode(), nil, &is); err != nil {
		return err
	}
	if is.Status != "enabled" {
		return fmt.Errorf("its status is %.40q, because %.200q", is.Status, is.Reason)
	}
	return nil
}

// verify lets the transmitter send a word of ours, and waits until it has come, to this replica or another one.
func (s *Receiver) verify(ctx context.Context) error {
	st := s.Events.Stream
	at, err := st.Facts.Endpoints(ctx)
	if err != nil || at.Verification == "" {
		return err
	}
	state := rand.Text()
	ctx, cancel := context.WithTimeout(ctx, st.pause(verifyWithin)+time.Second)
	defer cancel()
	if err := st.send(ctx, http.MethodPost, at.Verification, map[string]string{"stream_id": st.ID, "state": state}, nil); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if came, err := s.Messages.KnownMessage(ctx, s.Tenant, message("verification", s.Events.Issuer, state)); err != nil || came {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return errors.New("the verification event that was asked for did not come")
}

// verified notes that a word of ours came back. A stranger's changes nothing.
func (s *Receiver) verified(ctx context.Context, e event) error {
	if e.state == "" || len(e.state) > maxID {
		return nil // the transmitter asks by itself whether we listen
	}
	_, err := s.Messages.PutMessage(ctx, s.Tenant, message("verification", s.Events.Issuer, e.state), s.Now().Add(time.Hour))
	return err
}

// send speaks JSON with the transmitter.
func (st *Stream) send(ctx context.Context, method, to string, body, into any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(b))
	if err != nil {
		return err
	}
	token, err := st.Token()
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := st.HTTP.RoundTrip(r)
	if err != nil {
		return err
	}
	text, err := outbound.ReadLimited(resp, maxPolled)
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it answered %s", resp.Status)
	case into == nil || len(bytes.TrimSpace(text)) == 0:
		return nil
	}
	return json.Unmarshal(text, into)
}
