// Package dpop proves, request by request, that whoever shows an access token holds the key that it is bound to (RFC 9449).
//
// A token that leaks without its key opens nothing. A proof is no secret: it is good for one method at one URL, with one token, for as
// long as the other side lets its time stand. The key is a secret, and leaves by Secret alone.
package dpop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

const (
	// Header carries a proof; HeaderNonce what the other side wants to see in the next one (sections 4.1 and 8).
	Header      = "DPoP"
	HeaderNonce = "DPoP-Nonce"

	// Scheme is the authentication scheme and the token_type of a token that is bound to a key (sections 5 and 7.1).
	Scheme = "DPoP"

	// Algorithm is the one that keys of ours sign with.
	Algorithm = "ES256"

	// CodeUseNonce is the error of a proof that lacks the other side's nonce (section 12.2).
	CodeUseNonce = "use_dpop_nonce"
)

// Key is a key of one connection's own. It is safe for concurrent use.
type Key struct {
	private *ecdsa.PrivateKey
	head    string // of every proof, as it is signed
	print   string
}

// NewKey makes a key.
func NewKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return keyOf(private)
}

// ParseKey is the inverse of Secret.
func ParseKey(s secret.Text) (*Key, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s.Expose())
	if err != nil {
		return nil, errors.New("dpop: the key is not base64url") // the cause would quote it
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	clear(raw)
	if err != nil {
		return nil, errors.New("dpop: the key is none of P-256")
	}
	return keyOf(private)
}

func keyOf(private *ecdsa.PrivateKey) (*Key, error) {
	public := jose.JSONWebKey{Key: private.Public()}
	sum, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(map[string]any{"typ": "dpop+jwt", "alg": Algorithm, "jwk": public})
	if err != nil {
		return nil, err
	}
	return &Key{private, base64.RawURLEncoding.EncodeToString(head) + ".", base64.RawURLEncoding.EncodeToString(sum)}, nil
}

// Secret is the private key, to be sealed.
func (k *Key) Secret() (secret.Text, error) {
	raw, err := k.private.Bytes()
	if err != nil {
		return secret.Text{}, err
	}
	return secret.New(base64.RawURLEncoding.EncodeToString(raw)), nil
}

// Itself is the key where a new one could be asked for.
func (k *Key) Itself() (*Key, error) { return k, nil }

// Thumbprint is the key's (RFC 7638), as a token that is bound to it names it in cnf.jkt.
func (k *Key) Thumbprint() string { return k.print }

// claims of a proof (section 4.2).
type claims struct {
	ID     string `json:"jti"`
	Method string `json:"htm"`
	Target string `json:"htu"`
	Issued int64  `json:"iat"`
	Access string `json:"ath,omitempty"`
	Nonce  string `json:"nonce,omitempty"`
}

// Proof is one for a request: of this method, to this URL, with this access token, where there is one already. nonce is the other
// side's, "" where it has named none.
func (k *Key) Proof(method string, target *url.URL, access secret.Text, nonce string, now time.Time) (string, error) {
	c := claims{ID: rand.Text(), Method: method, Target: htu(target), Issued: now.Unix(), Nonce: nonce}
	if !access.IsZero() {
		sum := sha256.Sum256([]byte(access.Expose()))
		c.Access = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return k.sign(payload)
}

// sign makes a compact JWS (RFC 7515 section 3.1). By hand, since the header is the same each time: a library's signer writes the key
// anew for each proof, which is most of what it costs.
func (k *Key) sign(payload []byte) (string, error) {
	b := make([]byte, 0, len(k.head)+2*len(payload)+96)
	b = base64.RawURLEncoding.AppendEncode(append(b, k.head...), payload)
	sum := sha256.Sum256(b)
	x, y, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		return "", err
	}
	var signature [64]byte // RFC 7518 section 3.4
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	return string(base64.RawURLEncoding.AppendEncode(append(b, '.'), signature[:])), nil
}

// htu is the request's target without query and fragment (section 4.2), its scheme and host as RFC 3986 section 6.2 spells them.
func htu(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if scheme == "https" {
		host = strings.TrimSuffix(host, ":443")
	} else if scheme == "http" {
		host = strings.TrimSuffix(host, ":80")
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path
}

// Token is an access token that is bound to a key.
type Token struct {
	Key    *Key
	Access secret.Text
	Nonces *Nonces // of its resource; required
	Now    func() time.Time
}

// Place puts the token and a fresh proof onto a request, in the place of what stood there.
func (t Token) Place(r *http.Request) error { return t.place(r, t.Nonces.Of(r.URL)) }

func (t Token) place(r *http.Request, nonce string) error {
	proof, err := t.Key.Proof(r.Method, r.URL, t.Access, nonce, t.Now())
	if err != nil {
		return err
	}
	r.Header["Authorization"] = []string{Scheme + " " + t.Access.Expose()}
	for name := range r.Header { // also under a spelling that is not canonical
		if strings.EqualFold(name, Header) {
			delete(r.Header, name)
		}
	}
	r.Header.Set(Header, proof)
	return nil
}

// maxKept bounds the body that is kept to be sent again, should its resource want another nonce.
const maxKept = 256 << 10

// Send places the token, sends the request, and where the resource wants another nonce in the proof (section 9) sends it once more:
// it has done nothing with the first one. A request whose body is long, or of unknown length, is not sent again; the next one has the
// nonce.
// What the resource says of nonces ends here.
func (t Token) Send(r *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	nonce := t.Nonces.Of(r.URL)
	second, err := again(r)
	if err != nil {
		return nil, err
	}
	if err := t.place(r, nonce); err != nil {
		return nil, err
	}
	resp, err := t.sent(r, send)
	if err != nil || second == nil || !asksNonce(resp) || t.Nonces.Of(r.URL) == nonce {
		return resp, err
	}
	if err := t.place(second, t.Nonces.Of(r.URL)); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	_ = resp.Body.Close() // a refusal, of which all is read that matters
	return t.sent(second, send)
}

func (t Token) sent(r *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	resp, err := send(r)
	if err == nil {
		t.Nonces.Learn(r.URL, resp.Header)
		resp.Header.Del(HeaderNonce)
	}
	return resp, err
}

// asksNonce reports whether a resource refused the proof for its nonce alone.
func asksNonce(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	for _, v := range resp.Header.Values("WWW-Authenticate") {
		if at := strings.Index(strings.ToLower(v), strings.ToLower(Scheme)+" "); at >= 0 && strings.Contains(v[at:], CodeUseNonce) {
			return true
		}
	}
	return false
}

// again is a copy of the request to send once more, nil where its body cannot be had twice.
func again(r *http.Request) (*http.Request, error) {
	if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		if r.ContentLength <= 0 || r.ContentLength > maxKept {
			return nil, nil
		}
		if err := hold(r); err != nil {
			return nil, err
		}
	}
	second := r.Clone(r.Context())
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, nil // the first one goes out all the same
		}
		second.Body = body
	}
	return second, nil
}

// hold reads the body into memory, so that it can be had twice.
func hold(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	closer := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), closer}
	return nil
}

// Nonces remembers what each origin wants to see in the next proof (section 8). The zero Nonces knows none; it is safe for concurrent
// use, and a nil one remembers nothing.
type Nonces struct {
	mu   sync.RWMutex
	last map[string]string // guarded by mu
}

const (
	maxOrigins = 4096
	maxNonce   = 1024
)

// Of is the nonce of a URL's origin; "" where it has named none.
func (n *Nonces) Of(u *url.URL) string {
	if n == nil {
		return ""
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.last[origin(u)]
}

// Learn takes in what an answer says, and returns its nonce: "" where it has none that can stand in a proof.
func (n *Nonces) Learn(u *url.URL, h http.Header) string {
	values := h.Values(HeaderNonce)
	if len(values) != 1 || !usable(values[0]) {
		return ""
	}
	if n == nil {
		return values[0]
	}
	at := origin(u)
	n.mu.RLock()
	known := n.last[at] == values[0]
	n.mu.RUnlock()
	if known {
		return values[0]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil || len(n.last) >= maxOrigins {
		n.last = map[string]string{}
	}
	n.last[at] = values[0]
	return values[0]
}

func origin(u *url.URL) string { return strings.ToLower(u.Scheme + "://" + u.Host) }

// usable is the syntax of a nonce (section 8.1): visible ASCII but for the quote and the backslash.
func usable(nonce string) bool {
	return nonce != "" && len(nonce) <= maxNonce && !strings.ContainsFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}
