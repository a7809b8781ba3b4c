package kms_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// service plays the key services as their documentation says. Ciphertexts are the sealed text beside what it is bound to: it
// is the binding that is tried here, not the services' cryptography.
type service struct {
	*httptest.Server
	rsa    *rsa.PrivateKey
	status atomic.Int32           // answered instead, if set
	answer atomic.Pointer[string] // with status
	calls  atomic.Int32
	last   atomic.Pointer[http.Header]
	body   atomic.Pointer[[]byte]
}

func newService(t *testing.T) *service {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{rsa: key}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	raw, _ := io.ReadAll(r.Body)
	s.body.Store(&raw)
	s.last.Store(&r.Header)
	if status := s.status.Load(); status != 0 {
		w.WriteHeader(int(status))
		body := `{"message":"the key and the token: secret-of-the-service"}`
		if p := s.answer.Load(); p != nil {
			body = *p
		}
		_, _ = io.WriteString(w, body)
		return
	}
	var in struct {
		Plaintext, CiphertextBlob, AssociatedData, AdditionalAuthenticatedData []byte
		EncryptionContext                                                      map[string]string
		Ciphertext, Value, Alg                                                 string
		Associated                                                             []byte `json:"associated_data"`
	}
	_ = json.Unmarshal(raw, &in)
	seal := func(bound []byte) []byte { return append(append([]byte("sealed:"), bound...), in.Plaintext...) }
	open := func(sealed, bound []byte) ([]byte, bool) {
		return bytes.CutPrefix(sealed, append([]byte("sealed:"), bound...))
	}
	answer := func(v any, ok bool) {
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	bound := []byte(in.EncryptionContext["frontdesk"])
	switch at := r.Header.Get("X-Amz-Target") + " " + r.URL.Path; {
	case at == "TrentService.Encrypt /":
		answer(map[string]any{"CiphertextBlob": seal(bound)}, true)
	case at == "TrentService.Decrypt /":
		p, ok := open(in.CiphertextBlob, bound)
		answer(map[string]any{"Plaintext": p}, ok)
	case at == " /v1/projects/p/k:encrypt":
		answer(map[string]any{"ciphertext": seal(in.AdditionalAuthenticatedData)}, true)
	case at == " /v1/projects/p/k:decrypt":
		c, _ := base64.StdEncoding.DecodeString(in.Ciphertext)
		p, ok := open(c, in.AdditionalAuthenticatedData)
		answer(map[string]any{"plaintext": p}, ok)
	case at == " /v1/transit/encrypt/desk":
		answer(map[string]any{"data": map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(seal(in.Associated))}}, true)
	case at == " /v1/transit/decrypt/desk":
		c, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Ciphertext, "vault:v1:"))
		p, ok := open(c, in.Associated)
		answer(map[string]any{"data": map[string]any{"plaintext": p}}, ok)
	case strings.HasSuffix(at, "/keys/desk/7/wrapkey"), strings.HasSuffix(at, "/keys/desk/7/unwrapkey"):
		v, _ := base64.RawURLEncoding.DecodeString(in.Value)
		var out []byte
		var err error
		if strings.HasSuffix(at, "/wrapkey") {
			out, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &s.rsa.PublicKey, v, nil)
		} else {
			out, err = rsa.DecryptOAEP(sha256.New(), nil, s.rsa, v, nil)
		}
		answer(map[string]any{"kid": "desk/7", "value": base64.RawURLEncoding.EncodeToString(out)}, err == nil && in.Alg == "RSA-OAEP-256")
	default:
		http.NotFound(w, r)
	}
}

// doer sends to loopback in tests alone; the product hands over kit/outbound.
type doer struct{ http.RoundTripper }

func (d doer) Do(r *http.Request) (*http.Response, error) { return d.RoundTrip(r) }

type keys struct{}

func (keys) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret-of-aws", SessionToken: "session"}, nil
}

func providers(s *service) map[string]kms.Wrapper {
	send, token := doer{s.Client().Transport}, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "access"})
	return map[string]kms.Wrapper{
		"aws":     &kms.AWS{HTTP: send, Key: "arn:aws:kms:eu-central-1:1:key/k", Region: "eu-central-1", URL: s.URL, Credentials: keys{}, Now: time.Now},
		"google":  &kms.Google{HTTP: send, Key: "projects/p/k", URL: s.URL, Tokens: token},
		"azure":   &kms.Azure{HTTP: send, Key: s.URL + "/keys/desk/7", Tokens: token},
		"transit": &kms.Transit{HTTP: send, URL: s.URL + "/", Key: "desk", Token: func() (secret.Text, error) { return secret.New("vault-token"), nil }},
	}
}

// TestProviders: what is wrapped opens with the same context, and with no other; a service that is away is told from one that
// says no; nothing that it says is quoted.
func TestProviders(t *testing.T) {
	plain := bytes.Repeat([]byte("keyset"), 60) // more than an RSA key takes
	authorization := map[string]string{"aws": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/", "google": "Bearer access", "azure": "Bearer access"}
	for name := range providers(newService(t)) {
		t.Run(name, func(t *testing.T) {
			ctx, s := t.Context(), newService(t)
			w := providers(s)[name]
			wrapped, err := w.Wrap(ctx, plain, []byte("tenant a"))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.last.Load().Get("Authorization"); !strings.HasPrefix(got, authorization[name]) {
				t.Errorf("asked with %q", got)
			}
			if name == "transit" && s.last.Load().Get("X-Vault-Token") != "vault-token" {
				t.Error("asked without the token")
			}
			if name == "azure" && bytes.Contains(*s.body.Load(), plain[:12]) {
				t.Error("the keyset itself went to Azure")
			}
			got, err := w.Unwrap(ctx, wrapped, []byte("tenant a"))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("unwrapped %d bytes, %v", len(got), err)
			}
			if _, err := w.Unwrap(ctx, wrapped, []byte("tenant b")); err == nil {
				t.Error("it opens in another place than its own")
			}
			for i := range len(wrapped) {
				if i%7 != 0 && i > 40 {
					continue // enough of them
				}
				bad := bytes.Clone(wrapped)
				bad[i] ^= 1
				if got, err := w.Unwrap(ctx, bad, []byte("tenant a")); err == nil && !bytes.Equal(got, plain) && name == "azure" {
					t.Fatalf("byte %d changed, and something opened", i)
				}
			}
			for _, short := range [][]byte{nil, {0}, {0xff, 0xff}, []byte("vault:")} {
				if _, err := w.Unwrap(ctx, short, []byte("tenant a")); err == nil {
					t.Errorf("%q opened", short)
				}
			}
			for status, want := range map[int32]fault.Kind{403: fault.Denied, 400: fault.Denied, 429: fault.Unavailable, 503: fault.Unavailable} {
				s.status.Store(status)
				if _, err := w.Unwrap(ctx, wrapped, []byte("tenant a")); fault.KindOf(err) != want || strings.Contains(err.Error(), "secret-of") {
					t.Errorf("status %d: %v (%s), want %s", status, err, fault.KindOf(err), want)
				}
			}
			s.Close()
			if _, err := w.Wrap(ctx, plain, []byte("x")); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("the service is away: %v", err)
			}
		})
	}
}

// TestCached: a service is asked every five minutes, forgiven for as long while it is away, and believed when it says no.
func TestCached(t *testing.T) {
	ctx, s, now := t.Context(), newService(t), time.Now()
	c := &kms.Cached{Wrapper: providers(s)["transit"], Now: func() time.Time { return now }}
	wrapped, err := c.Wrap(ctx, []byte("keyset"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	asked := func(want int32) {
		t.Helper()
		if got := s.calls.Load(); got != want {
			t.Errorf("asked %d times, want %d", got, want)
		}
	}
	opens := func(want bool) {
		t.Helper()
		got, err := c.Unwrap(ctx, wrapped, []byte("a"))
		if opened := err == nil && string(got) == "keyset"; opened != want {
			t.Errorf("opened: %t (%v)", opened, err)
		}
		clear(got) // what a caller does with it is nobody else's
	}
	opens(true)
	opens(true)
	asked(2)
	if _, err := c.Unwrap(ctx, wrapped, []byte("b")); err == nil {
		t.Error("what is remembered opens in another place")
	}
	now = now.Add(6 * time.Minute)
	s.status.Store(503)
	opens(true) // away
	now = now.Add(5 * time.Minute)
	opens(false) // for too long
	s.status.Store(0)
	now = now.Add(6 * time.Second)
	opens(true)
	s.status.Store(403)
	opens(true) // remembered
	now = now.Add(6 * time.Minute)
	opens(false) // its right was taken away
	s.status.Store(503)
	opens(false) // and nothing is remembered any more
}

// TestCachedAway: while a service is silent nobody waits for it who can do without, nobody waits twice, what is asked at once is asked
// once, and it is noticed by itself that it is back.
func TestCachedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &silent{}
		c := &kms.Cached{Wrapper: w, Now: time.Now}
		var log bytes.Buffer
		c.Watch(slog.New(slog.NewTextHandler(&log, nil)))
		unwrap := func(what string, want error, atMost time.Duration) {
			t.Helper()
			began := time.Now()
			got, err := c.Unwrap(t.Context(), []byte(what), []byte("a"))
			if took := time.Since(began); took > atMost {
				t.Errorf("%s: took %v", what, took)
			}
			if fault.KindOf(err) != fault.KindOf(want) || (err == nil) != (want == nil) || err == nil && string(got) != what {
				t.Errorf("%s: %q, %v; want %v", what, got, err, want)
			}
		}
		away, no := fault.New(fault.Unavailable, "away", nil), fault.New(fault.Denied, "no", nil)
		unwrap("one", nil, 0)
		time.Sleep(6 * time.Minute)
		w.hangs.Store(true)
		before := w.asked.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { unwrap("one", nil, time.Second) })
		}
		wg.Wait()
		if n := w.asked.Load() - before; n != 1 {
			t.Errorf("asked %d times at once", n)
		}
		unwrap("two", away, 11*time.Second) // nobody knew that it is away
		unwrap("one", nil, 0)               // now everybody does
		unwrap("two", away, 100*time.Millisecond)
		unwrap("three", away, 100*time.Millisecond)
		if since, trouble := c.Standing(); trouble == nil || since.IsZero() {
			t.Errorf("it stands well: %v %v", since, trouble)
		}
		w.hangs.Store(false)
		time.Sleep(6 * time.Second)
		unwrap("two", nil, 0)
		unwrap("one", nil, 0)
		if _, trouble := c.Standing(); trouble != nil {
			t.Errorf("it is back: %v", trouble)
		}
		w.says.Store(&no)
		time.Sleep(6 * time.Minute)
		unwrap("one", no, 0)
		if since, trouble := c.Standing(); trouble == nil || !since.IsZero() {
			t.Errorf("it says no: %v %v", since, trouble)
		}
		w.hangs.Store(true)
		unwrap("one", away, 11*time.Second) // what it said no to is not remembered
		time.Sleep(time.Minute)
		synctest.Wait() // what was under way has ended
		for _, want := range []string{"does not answer", "answers again", "refuses a key"} {
			if strings.Count(log.String(), want) == 0 {
				t.Errorf("the log lacks %q:\n%s", want, log.String())
			}
		}
	})
}

// silent is a service that can stop answering.
type silent struct {
	hangs atomic.Bool
	says  atomic.Pointer[error]
	asked atomic.Int32
}

func (s *silent) Wrap(_ context.Context, plain, _ []byte) ([]byte, error) { return plain, nil }

func (s *silent) Unwrap(ctx context.Context, wrapped, _ []byte) ([]byte, error) {
	s.asked.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return nil, fault.New(fault.Unavailable, "away", ctx.Err())
	}
	if no := s.says.Load(); no != nil {
		return nil, *no
	}
	return bytes.Clone(wrapped), nil
}

// TestWhatServicesSay: what is no word on the key is no no, whatever its status, and a no says what to do about it. Nothing else of an
// answer is quoted.
func TestWhatServicesSay(t *testing.T) {
	for _, c := range []struct {
		provider string
		status   int
		body     string
		want     fault.Kind
		says     string
	}{
		{"aws", 400, `{"__type":"ThrottlingException","message":"CANARY"}`, fault.Unavailable, "AWS KMS does not answer"},
		{"aws", 400, `{"__type":"com.amazonaws.kms#LimitExceededException"}`, fault.Unavailable, "AWS KMS does not answer"},
		{"aws", 500, `{"__type":"DependencyTimeoutException"}`, fault.Unavailable, "does not answer"},
		{"aws", 400, `{"__type":"AccessDeniedException","message":"CANARY"}`, fault.Denied, "look at its rights"},
		{"aws", 400, `{"__type":"com.amazonaws.kms#DisabledException"}`, fault.Denied, "enable it there"},
		{"aws", 400, `{"__type":"KMSInvalidStateException"}`, fault.Denied, "enable it there"},
		{"aws", 400, `{"__type":"NotFoundException"}`, fault.Denied, "knows no such key"},
		{"aws", 400, `{"__type":"IncorrectKeyException"}`, fault.Denied, "keys.previous"},
		{"aws", 400, `{"__type":"InvalidCiphertextException"}`, fault.Denied, "keys.previous"},
		{"aws", 400, `{"__type":"ExpiredTokenException"}`, fault.Denied, "credentials"},
		{"aws", 400, `{"__type":"CANARY"}`, fault.Denied, "keys.previous"},
		{"aws", 502, "<html>CANARY", fault.Unavailable, "does not answer"},
		{"google", 400, `{"error":{"code":400,"message":"CANARY","status":"FAILED_PRECONDITION"}}`, fault.Denied, "Google Cloud KMS says that the key is disabled"},
		{"google", 400, `{"error":{"code":400,"status":"INVALID_ARGUMENT"}}`, fault.Denied, "keys.previous"},
		{"google", 403, `{"error":{"code":403,"status":"PERMISSION_DENIED"}}`, fault.Denied, "rights"},
		{"google", 404, `{"error":{"code":404,"status":"NOT_FOUND"}}`, fault.Denied, "knows no such key"},
		{"google", 429, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`, fault.Unavailable, "does not answer"},
		{"azure", 403, `{"error":{"code":"Forbidden","message":"CANARY","innererror":{"code":"KeyDisabled"}}}`, fault.Denied, "Azure Key Vault says that the key is disabled"},
		{"azure", 403, `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByPolicy"}}}`, fault.Denied, "rights"},
		{"azure", 401, `{"error":{"code":"Unauthorized"}}`, fault.Denied, "credentials"},
		{"azure", 404, `{"error":{"code":"KeyNotFound"}}`, fault.Denied, "knows no such key"},
		{"transit", 403, `{"errors":["permission denied CANARY"]}`, fault.Denied, "Vault Transit says that this process may not use the key"},
		{"transit", 400, `{"errors":["cipher: message authentication failed"]}`, fault.Denied, "keys.previous"},
		{"transit", 503, `{"errors":["Vault is sealed"]}`, fault.Unavailable, "does not answer"},
	} {
		s := newService(t)
		w := providers(s)[c.provider]
		wrapped, err := w.Wrap(t.Context(), []byte("keyset"), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		s.answer.Store(&c.body)
		s.status.Store(int32(c.status))
		_, err = w.Unwrap(t.Context(), wrapped, []byte("a"))
		if fault.KindOf(err) != c.want || !strings.Contains(fault.Message(err), c.says) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s, %d %s: %v (%s); want %s: …%s", c.provider, c.status, c.body, err, fault.KindOf(err), c.want, c.says)
		}
	}
}

// TestChain: while the wrapping key changes, both open and the first wraps; one that is away is not taken for a no.
func TestChain(t *testing.T) {
	ctx, old, next := t.Context(), newService(t), newService(t)
	was, is := providers(old)["azure"], providers(next)["azure"]
	wrapped, err := was.Wrap(ctx, []byte("keyset"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	chain := kms.Chain{is, was}
	if got, err := chain.Unwrap(ctx, wrapped, []byte("a")); err != nil || string(got) != "keyset" {
		t.Errorf("%q, %v", got, err)
	}
	wrapped, err = chain.Wrap(ctx, []byte("keyset"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := was.Unwrap(ctx, wrapped, []byte("a")); err == nil {
		t.Error("the old provider opens what the new one wrapped")
	}
	next.status.Store(503)
	if _, err := chain.Unwrap(ctx, wrapped, []byte("a")); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the new provider is away: %v", err)
	}
	if _, err := (kms.Chain{}).Unwrap(ctx, wrapped, []byte("a")); err == nil || errors.Is(err, context.Canceled) {
		t.Error("nobody opened it")
	}
}
