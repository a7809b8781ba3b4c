package web

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Keys are the faces' own: cookies, form tickets, requestState, upstream session ids. They open no credential. Replicas share
// the file.
type Keys struct{ aead tink.AEAD }

// OpenKeys reads the key file, and makes it if there is none.
func OpenKeys(path string) (*Keys, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeKeys(path)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key file %s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		return nil, fmt.Errorf("the key file %s is damaged: delete it, and everybody signs in again", path)
	}
	a, err := aead.New(h)
	return &Keys{a}, err
}

func makeKeys(path string) ([]byte, error) {
	h, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&b)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return b.Bytes(), os.WriteFile(path, b.Bytes(), 0o600)
}

// Seal makes an opaque text of plain, for one purpose and bound to aad.
func (k *Keys) Seal(purpose string, aad, plain []byte) string {
	c, err := k.aead.Encrypt(plain, bind(purpose, aad))
	if err != nil {
		panic(err) // XChaCha20-Poly1305 fails for no input; only a broken random source could bring us here
	}
	return base64.RawURLEncoding.EncodeToString(c)
}

// Open is its inverse.
func (k *Keys) Open(purpose string, aad []byte, sealed string) ([]byte, error) {
	c, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	return k.aead.Decrypt(c, bind(purpose, aad))
}

func bind(purpose string, aad []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(purpose)+len(aad)), uint32(len(purpose)))
	return append(append(b, purpose...), aad...)
}

// Browser keeps who is signed in, in sealed cookies. Secure is false only where the public URL is http on loopback; then the
// names carry no prefix, but Suffix, so that two servers on one machine do not share them.
type Browser struct {
	Keys   *Keys
	Secure bool
	Suffix string
	Tenant string // of other than the default tenant: who is signed in at two of them is so by two cookies
	Now    func() time.Time
	// Alive reports whether a session still holds: nothing has ended the person's access since it began.
	Alive func(s Session) bool
}

// DoorPass says, from the consent page to the door, who was just let in. It ends: an address that a browser opens again by itself,
// days later, gives nothing back that its person has taken away since.
type DoorPass struct {
	User, Server, Client string
	Ends                 time.Time
}

const purposeDoor = "door"

// Sealer keeps what a page must bring back unchanged (Browser).
type Sealer interface {
	Seal(purpose string, aad, plain []byte) string
}

// Seal makes the pass a text for one browser.
func (p DoorPass) Seal(by Sealer, binding []byte) (string, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	return by.Seal(purposeDoor, binding, plain), nil
}

// Pass is the inverse of DoorPass.Seal; false for anything else than a pass of this browser that has not ended.
func (b *Browser) Pass(binding []byte, sealed string) (DoorPass, bool) {
	var p DoorPass
	plain, err := b.Open(purposeDoor, binding, sealed)
	return p, err == nil && json.Unmarshal(plain, &p) == nil && b.Now().Before(p.Ends)
}

const (
	cookieSession = "session"
	cookieBinding = "browser"
	bindingLife   = 365 * 24 * time.Hour
)

func (b *Browser) name(what string) string {
	if b.Tenant != "" {
		what += "." + b.Tenant
	}
	if b.Secure {
		return "__Host-frontdesk-" + what
	}
	return "frontdesk-" + what + b.Suffix
}

func (b *Browser) cookie(what, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: b.name(what), Value: value, Path: "/", MaxAge: int(life.Seconds()), HttpOnly: true, Secure: b.Secure, SameSite: http.SameSiteLaxMode}
}

// Session returns who is signed in. A cookie of another browser does not open: it is bound to the binding cookie.
func (b *Browser) Session(r *http.Request) (Session, bool) {
	c, err := r.Cookie(b.name(cookieSession))
	if err != nil {
		return Session{}, false
	}
	plain, err := b.Keys.Open("web/session", digestOf(r, b.name(cookieBinding)), c.Value)
	var s Session
	if err != nil || json.Unmarshal(plain, &s) != nil || !b.Now().Before(s.Ends) || !b.Alive(s) {
		return Session{}, false
	}
	return s, true
}

// SignIn remembers the person in this browser, as a session that never was before; without an ID it gets one.
func (b *Browser) SignIn(w http.ResponseWriter, r *http.Request, s Session) error {
	s.ID = cmp.Or(s.ID, rand.Text())
	plain, err := json.Marshal(s)
	if err != nil {
		return err
	}
	http.SetCookie(w, b.cookie(cookieSession, b.Keys.Seal("web/session", b.Binding(w, r), plain), s.Ends.Sub(b.Now())))
	return nil
}

// SignOut makes the browser forget him. A copy of the cookie lives on until the caller ends the session itself.
func (b *Browser) SignOut(w http.ResponseWriter) {
	c := b.cookie(cookieSession, "", 0)
	c.MaxAge = -1
	http.SetCookie(w, c)
}

// Binding is the digest of a cookie that this browser alone has; it is set where there is none.
func (b *Browser) Binding(w http.ResponseWriter, r *http.Request) []byte {
	name := b.name(cookieBinding)
	if d := digestOf(r, name); d != nil {
		return d
	}
	random := make([]byte, 24)
	if _, err := rand.Read(random); err != nil {
		return nil
	}
	c := b.cookie(cookieBinding, base64.RawURLEncoding.EncodeToString(random), bindingLife)
	http.SetCookie(w, c)
	r.AddCookie(&http.Cookie{Name: name, Value: c.Value}) // so that a second look within this request sees the same
	return digestOf(r, name)
}

func digestOf(r *http.Request, name string) []byte {
	c, err := r.Cookie(name)
	if err != nil || len(c.Value) != 32 {
		return nil
	}
	d := sha256.Sum256([]byte(c.Value))
	return d[:]
}

// Seal and Open are those of the keys, for pages that bring something back unchanged.
func (b *Browser) Seal(purpose string, aad, plain []byte) string {
	return b.Keys.Seal(purpose, aad, plain)
}

// Open is the inverse of Seal.
func (b *Browser) Open(purpose string, aad []byte, sealed string) ([]byte, error) {
	return b.Keys.Open(purpose, aad, sealed)
}
