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
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
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

const (
	callTimeout = 10 * time.Second
	maxAnswer   = 256 << 10
)

// refusal is a provider's no. Of its body nothing is quoted but a code that is known.
type refusal struct {
	provider string
	status   int
	code     string
}

func (r *refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s answered with status %d %s", r.provider, r.status, r.code))
}

// call makes one JSON request. Errors: fault.Unavailable where the provider is away, fault.Denied where it says no; both with a sentence
// that names the provider and says what to do.
func call(ctx context.Context, doer Doer, provider string, r *http.Request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := doer.Do(r.WithContext(ctx))
	if err != nil {
		return isAway(provider, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return isAway(provider, err)
	case resp.StatusCode != http.StatusOK:
		return refused(provider, resp.StatusCode, body)
	case len(body) > maxAnswer || json.Unmarshal(body, into) != nil:
		return fault.New(fault.Unavailable, "the key service "+provider+" gave an answer that cannot be used; try again later", nil)
	}
	return nil
}

func isAway(provider string, cause error) error {
	return fault.New(fault.Unavailable, "the key service "+provider+" does not answer; try again later", cause)
}

// unproven is that nothing proves this process to a provider: a login service that is away, or a file that cannot be read.
func unproven(provider string, cause error) error {
	return fault.New(fault.Unavailable, "this process's credentials for the key service "+provider+" cannot be had; an operator has to look at them", cause)
}

// busy are the codes of answers that are no word on the key, whatever their status: AWS KMS throttles with 400.
var busy = []string{"ThrottlingException", "Throttling", "LimitExceededException", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "InternalFailure",
	"KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException"}

// noes say what is to be done about a no, by the code that the provider's API names; else by its status.
var noes = map[string]string{
	// AWS KMS, API Reference: Decrypt, and common error types.
	"AccessDeniedException":               sayRights,
	"DisabledException":                   sayDisabled,
	"KMSInvalidStateException":            sayDisabled,
	"NotFoundException":                   sayNone,
	"IncorrectKeyException":               sayOther,
	"InvalidCiphertextException":          sayOther,
	"ExpiredTokenException":               sayCredentials,
	"UnrecognizedClientException":         sayCredentials,
	"InvalidClientTokenId":                sayCredentials,
	"InvalidSignatureException":           sayCredentials,
	"MissingAuthenticationToken":          sayCredentials,
	"IncompleteSignature":                 sayCredentials,
	"IncompleteSignatureException":        sayCredentials,
	"MissingAuthenticationTokenException": sayCredentials,
	// Google, google.rpc.Code.
	"PERMISSION_DENIED":   sayRights,
	"FAILED_PRECONDITION": sayDisabled,
	"NOT_FOUND":           sayNone,
	"INVALID_ARGUMENT":    sayOther,
	"UNAUTHENTICATED":     sayCredentials,
	// Azure Key Vault, error codes of the REST API.
	"KeyDisabled":  sayDisabled,
	"KeyNotFound":  sayNone,
	"Unauthorized": sayCredentials,
}

const (
	sayRights      = "says that this process may not use the key: look at its rights there"
	sayDisabled    = "says that the key is disabled, or in no state to be used: enable it there"
	sayNone        = "knows no such key: look at `keys.service`, and whether the key was deleted there"
	sayOther       = "does not open it with this key: another key wrapped it, which `keys.previous` can name, or the row was altered"
	sayCredentials = "does not take this process's credentials: they have ended, or were withdrawn"
)

// refused reads an answer that is none.
func refused(provider string, status int, body []byte) error {
	var said struct {
		Type  string `json:"__type"` // AWS, sometimes behind the name of a namespace
		Error struct {
			Status string `json:"status"` // Google
			Code   any    `json:"code"`   // Azure; a number at Google
			Inner  struct {
				Code string `json:"code"`
			} `json:"innererror"` // Azure: what kind of Forbidden
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &said) // then the status alone speaks
	code, _ := said.Error.Code.(string)
	why := ""
	for _, c := range []string{said.Type[strings.LastIndexByte(said.Type, '#')+1:], said.Error.Status, said.Error.Inner.Code, code} {
		if slices.Contains(busy, c) {
			return isAway(provider, &refusal{provider, status, c})
		}
		if say, known := noes[c]; known && why == "" {
			why, code = say, c
		}
	}
	switch {
	case status == http.StatusTooManyRequests || status >= 500:
		return isAway(provider, &refusal{provider, status, ""})
	case why != "":
	case status == http.StatusUnauthorized:
		why, code = sayCredentials, ""
	case status == http.StatusForbidden:
		why, code = sayRights+"; where it proves itself by a token, look whether that has ended", ""
	case status == http.StatusNotFound:
		why, code = sayNone, ""
	default:
		why, code = sayOther, ""
	}
	return fault.New(fault.Denied, "the key service "+provider+" "+why, &refusal{provider, status, code})
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

var errEmpty = fault.New(fault.Unavailable, "the key service gave nothing back; try again later", nil)
