package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

func refuse(host, why string) error {
	return fault.New(fault.Denied, "outbound: refused "+host+": "+why, nil)
}

// refusal is a dialer's no. It travels inside of net.OpError.
type refusal struct {
	addr netip.Addr
	why  string
}

func (r *refusal) Error() string { return fmt.Sprintf("refused address %s: %s", r.addr, r.why) }

// explain turns a transport's error into a fault. Where a peer's bytes may be in the text, the text is cut: an answer
// of `HTTP/1.1 <credential>` must not end in a log.
func explain(host string, err error) error {
	if no, ok := errors.AsType[*refusal](err); ok {
		// The caller learns nothing about our DNS; the operator's log has the address.
		return fault.New(fault.Denied, "outbound: refused "+host+": it resolves to an address that this server may not reach",
			fmt.Errorf("outbound: refused address %s for host %s: %s", no.addr, host, no.why))
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err // the request's own body said what is wrong with it, or the proxy did
	}
	msg := host + " "
	switch {
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Unavailable, "the request to "+host+" was given up", context.Canceled)
	case isTimeout(err):
		msg += "did not answer in time; try again later"
	case isCertificate(err):
		msg += "shows a certificate that is not trusted; if it is of your own CA, set outbound.ca_file"
	case isDNS(err):
		msg += "is unknown to the DNS"
	case isNetwork(err):
		msg += "cannot be reached; try again later"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		msg += "hung up before it answered; try again later"
	default:
		return fault.New(fault.Unavailable, msg+"did not answer in proper HTTP; try again later", errors.New(mute(err.Error())))
	}
	return fault.New(fault.Unavailable, msg, err)
}

// Down reports whether an error of a Client says that the other side is away: not to be reached, silent for too long, or gone before it
// answered. What the guard refused, and who gave up himself, say nothing of it.
func Down(err error) bool {
	if errors.Is(err, context.Canceled) || fault.KindOf(err) == fault.Denied {
		return false
	}
	return Unsent(err) || isTimeout(err) || isNetwork(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Unsent reports whether an error says that there was no connection, so that nothing was sent.
func Unsent(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial" || isDNS(err) || isCertificate(err)
}

// proxyAnswered makes a sentence of a proxy's refusal to connect.
func proxyAnswered(_ context.Context, _ *url.URL, connect *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return fault.New(fault.Unavailable, fmt.Sprintf("outbound.proxy refused to connect to %s with status %d", connect.Host, answer.StatusCode), nil)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

func isCertificate(err error) bool {
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return verify || unknown
}

func isDNS(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// mute keeps of a protocol error what the standard library said, and drops what it quotes.
func mute(s string) string {
	if i := strings.Index(s, "malformed"); i >= 0 {
		s = s[:i+len("malformed")]
	}
	if i := strings.IndexAny(s, "\"`"); i >= 0 {
		s = s[:i]
	}
	const enough = 200
	return s[:min(len(s), enough)]
}

// body is an answer's body: its errors are faults, and closing it ends the fetch.
type body struct {
	io.ReadCloser
	host string
	done context.CancelFunc // nil but for Do
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		return n, brokenOff(b.host, err)
	}
	return n, err
}

func (b *body) Close() error {
	if b.done != nil {
		defer b.done()
	}
	return b.ReadCloser.Close()
}

func brokenOff(host string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), isTimeout(err), isNetwork(err):
		return explain(host, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, http.ErrBodyReadAfterClose):
		return fault.New(fault.Unavailable, "the answer of "+host+" broke off", err)
	}
	return fault.New(fault.Unavailable, "the answer of "+host+" broke off", errors.New(mute(err.Error())))
}

// ReadLimited reads an answer's whole body, at most n bytes of it, and closes it. A longer one is fault.Unavailable,
// with nothing returned.
func ReadLimited(resp *http.Response, n int64) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	tooLong := func() error {
		return fault.New(fault.Unavailable, fmt.Sprintf("the answer is longer than the %d bytes that are allowed here", n), nil)
	}
	if resp.ContentLength > n {
		return nil, tooLong()
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, n+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > n {
		return nil, tooLong()
	}
	return b, nil
}
