// Package kms holds key providers: what wraps the vault's keysets. A key file, or a service that keeps the key to itself.
//
// A provider wraps few and small things, the keysets of tenants and of the system, each bound to what it is (the context,
// which AWS and Google authenticate and log). So a call to it is paid once a keyset and a process, not once a credential, and
// a service that is away for a while is not noticed. It is trusted with the keys: whoever may use it, and reads the database,
// reads every credential. It sees no credential itself.
package kms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Doer sends a request (outbound.Client). Nothing is redirected.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Wrapper is keyring.Wrapper, which this package must not import.
type Wrapper interface {
	Wrap(ctx context.Context, plain, context []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error)
}

// Chain wraps with the first provider and unwraps with the first that can: for the time in which the wrapping key changes from
// one to another. The later ones are asked only for what the first refuses.
type Chain []Wrapper

// Wrap implements Wrapper.
func (c Chain) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	if len(c) == 0 {
		return nil, errors.New("kms: no provider")
	}
	return c[0].Wrap(ctx, plain, context)
}

// Unwrap implements Wrapper. Where one of them is away, that is the error: whether it could have opened is not known.
func (c Chain) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	var away, no error
	for _, w := range c {
		plain, err := w.Unwrap(ctx, wrapped, context)
		switch {
		case err == nil:
			return plain, nil
		case fault.KindOf(err) == fault.Unavailable:
			away = err
		default:
			no = err
		}
	}
	return nil, cmp.Or(away, no, errors.New("kms: no provider"))
}

// Cached remembers what a provider unwrapped, so that what is read every minute is asked for every five. A provider that is away
// is forgiven for as long again; one that says no is believed at once. Safe for concurrent use.
type Cached struct {
	Wrapper
	Now func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]unwrapped // guarded by mu
}

type unwrapped struct {
	plain []byte
	at    time.Time
}

const (
	cacheFresh = 5 * time.Minute
	cacheStale = 10 * time.Minute
	maxCached  = 10_000
)

// Unwrap implements Wrapper.
func (c *Cached) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	key := sha256.Sum256(slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(wrapped))), wrapped, context))
	c.mu.Lock()
	k, ok := c.known[key]
	c.mu.Unlock()
	age := c.Now().Sub(k.at)
	if ok && age < cacheFresh {
		return slices.Clone(k.plain), nil
	}
	plain, err := c.Wrapper.Unwrap(ctx, wrapped, context)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		if c.known == nil || len(c.known) >= maxCached {
			c.known = map[[sha256.Size]byte]unwrapped{}
		}
		c.known[key] = unwrapped{slices.Clone(plain), c.Now()}
		return plain, nil
	case ok && age < cacheStale && fault.KindOf(err) == fault.Unavailable:
		return slices.Clone(k.plain), nil
	}
	clear(k.plain)
	delete(c.known, key)
	return nil, err
}

const (
	callTimeout = 10 * time.Second
	maxAnswer   = 256 << 10
)

// refusal is a provider's no. Its body is quoted nowhere.
type refusal struct {
	provider string
	status   int
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s answered with status %d", r.provider, r.status)
}

// call makes one JSON request. Errors: fault.Unavailable where the provider is away, fault.Denied where it says no.
func call(ctx context.Context, doer Doer, provider string, r *http.Request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := doer.Do(r.WithContext(ctx))
	if err != nil {
		return fault.New(fault.Unavailable, "the key provider "+provider+" does not answer; try again later", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return fault.New(fault.Unavailable, "the key provider "+provider+" does not answer; try again later", errors.Join(err, &refusal{provider, resp.StatusCode}))
	case resp.StatusCode != http.StatusOK:
		return fault.New(fault.Denied, "the key provider "+provider+" refuses the key; an operator has to look at its rights", &refusal{provider, resp.StatusCode})
	case len(body) > maxAnswer || json.Unmarshal(body, into) != nil:
		return fault.New(fault.Unavailable, "the key provider "+provider+" gave an answer that cannot be used", nil)
	}
	return nil
}

func post(url string, v any) (*http.Request, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

var errEmpty = errors.New("the key provider gave nothing back")
