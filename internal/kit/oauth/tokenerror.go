package oauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Failure is what a failed call at a token endpoint means for whoever has to act on it.
type Failure uint8

const (
	Malformed      Failure = iota // not an OAuth answer, or one that contradicts itself; zero value: trust nothing
	GrantRefused                  // invalid_grant: the code or refresh token is dead, or used by somebody else
	ClientRefused                 // invalid_client, unauthorized_client: our registration, the operator's to mend
	RequestRefused                // another error code
	Temporary                     // 408, 425, 429, 5xx, network, time-out: no rejection of anything
	Oversized                     // an answer above 1 MiB
)

var failureNames = [...]string{"malformed answer", "grant refused", "client refused", "request refused", "temporary", "oversized answer"}

func (f Failure) String() string {
	if int(f) >= len(failureNames) {
		return failureNames[Malformed]
	}
	return failureNames[f]
}

// TokenError is a failed call at a token or revocation endpoint. It quotes nothing of the answer but Code.
type TokenError struct {
	Failure    Failure
	Code       string        // the vendor's error code, passed through ErrorCode; may be ""
	HTTPStatus int           // 0 without an answer
	RetryAfter time.Duration // from Retry-After, at most MaxRetryAfter; 0 if none

	// Definitive: the endpoint refused in RFC 6749's words (or the vendor's, by Endpoint.ErrorCodes), and would refuse
	// the same request again. Unknown words and unreadable answers are never definitive.
	Definitive bool

	// Sent: the request may have left this machine, so that the grant may be spent. False is certain.
	Sent bool

	Cause error // for the operator; nil for answers
}

// MaxRetryAfter bounds what a vendor can ask for.
const MaxRetryAfter = time.Hour

func (e *TokenError) Error() string {
	s := e.Failure.String()
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.HTTPStatus != 0 {
		s += fmt.Sprintf(", HTTP %d", e.HTTPStatus)
	}
	if !e.Sent {
		s += ", not sent"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *TokenError) Unwrap() error { return e.Cause }

// fault gives the error its kind and a sentence in our words.
func (e *TokenError) fault(endpoint string) error {
	host, code := hostOf(endpoint), e.Code
	if code == "" {
		code = fmt.Sprintf("HTTP %d", e.HTTPStatus)
	}
	switch e.Failure {
	case GrantRefused:
		return fault.New(fault.Denied, host+" no longer accepts this authorization ("+code+"); connect again", e)
	case ClientRefused:
		return fault.New(fault.Internal, host+" refuses Frontdesk's client registration ("+code+")", e)
	case RequestRefused:
		return fault.New(fault.Denied, host+" refused the request ("+code+"); ask your operator", e)
	case Temporary:
		if fault.KindOf(e.Cause) == fault.Denied { // our own guard's no, which says what to change
			return fault.New(fault.Denied, fault.Message(e.Cause), e)
		}
		return fault.Later(host+" cannot answer now; try again later", e.RetryAfter, e)
	}
	return fault.New(fault.Unavailable, host+" gave an answer that is not to be trusted ("+e.Failure.String()+"); ask your operator", e)
}

// refusal classifies an answer without a token.
func (e Endpoint) refusal(r reply, doc any) *TokenError {
	t := &TokenError{HTTPStatus: r.status, Sent: true, RetryAfter: retryAfter(r.header.Get("Retry-After"), r.now)}
	t.Code = ErrorCode(e.Answer.errorIn(doc))
	code := t.Code
	if standard, ok := e.ErrorCodes[code]; ok {
		code = standard
	}
	switch {
	case r.status == http.StatusRequestTimeout, r.status == http.StatusTooEarly, r.status == http.StatusTooManyRequests, r.status >= 500,
		code == CodeServerError, code == CodeTemporarilyUnavailable:
		t.Failure = Temporary // whatever the body says: a proxy's bad hour must not disconnect anybody
	case !r.whole:
		t.Failure = Oversized
	case code == "" || r.status >= 300 && r.status < 400:
		t.Failure = Malformed
	case code == CodeInvalidGrant:
		t.Failure, t.Definitive = GrantRefused, true
	case code == CodeInvalidClient, code == CodeUnauthorizedClient:
		t.Failure, t.Definitive = ClientRefused, true
	case code == CodeInvalidRequest, code == CodeInvalidScope, code == CodeInvalidTarget, code == CodeAccessDenied,
		code == CodeUnsupportedGrantType, code == CodeUnsupportedTokenType:
		t.Failure, t.Definitive = RequestRefused, true
	case code == dpop.CodeUseNonce: // of a nonce that was new a moment ago
		t.Failure = Temporary
	default:
		t.Failure = RequestRefused
	}
	return t
}

// retryAfter reads seconds or an HTTP date (RFC 9110 s10.2.3).
func retryAfter(field string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(field, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, MaxRetryAfter)
	}
	at, err := http.ParseTime(field)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}

// quiet keeps of a transport's error what cannot quote bytes of the other side, which may echo a secret
// ("malformed HTTP response ..."), nor the URL.
func quiet(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	for _, plain := range []error{context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, plain) {
			return plain
		}
	}
	if own, ok := errors.AsType[*fault.Error](err); ok {
		return own
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert
	}
	return errors.New("the connection broke")
}
