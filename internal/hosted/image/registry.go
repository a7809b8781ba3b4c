package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// registry is one repository of a registry, as whoever pulls from it sees it (OCI distribution spec, "Pull").
//
// Its requests go through the guard for what is found: the registry itself stands in the config, where its tokens and blobs are
// is for it to say. A blob's request that leads elsewhere goes there without a token.
type registry struct {
	Registry
	http       http.RoundTripper
	name       string // for messages
	repository string
	stall      time.Duration // without a byte, after which a registry is given up
	token      string        // "Bearer …" or "Basic …", once one was asked for
}

const (
	stall        = 30 * time.Second
	maxRedirects = 5
	maxToken     = 1 << 20
)

// accepted are the documents that an image can be.
var accepted = strings.Join([]string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json"}, ", ")

// find looks for the image that a reference names.
func (r *registry) find(ctx context.Context, ref Reference, limits Bounds) (*found, error) {
	version := ref.Tag
	if ref.Digest != "" {
		version = string(ref.Digest)
	}
	resp, err := r.get(ctx, "manifests/"+version, accepted)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read whole by then
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s has no %s, or shows it to nobody who asks like this", r.name, ref)
	}
	top, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, r.broke(ctx, err)
	}
	if len(top) > maxDocument {
		return nil, errors.New("its manifest is larger than 4 MiB")
	}
	want := ref.Digest
	if said := digest.Digest(resp.Header.Get("Docker-Content-Digest")); want == "" && checkDigest(said) == nil {
		want = said
	}
	if want != "" && want.Algorithm().FromBytes(top) != want {
		return nil, errDigest
	}
	f, err := choose(ctx, r, top, limits)
	if err == nil && ref.Digest != "" {
		f.digest = ref.Digest // it may be of another algorithm
	}
	return f, err
}

func (r *registry) document(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return r.fetch(ctx, "manifests/"+string(d.Digest), accepted, d)
}

func (r *registry) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return r.fetch(ctx, "blobs/"+string(d.Digest), "*/*", d)
}

func (r *registry) fetch(ctx context.Context, what, accept string, d v1.Descriptor) (io.ReadCloser, error) {
	resp, err := r.get(ctx, what, accept)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%s does not have %.80s", r.name, d.Digest)
	} else if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
		err = errDigest
	}
	if err != nil {
		_ = resp.Body.Close() // it is of no use
		return nil, err
	}
	return resp.Body, nil
}

// get asks the registry, with a token if it wants one. The answer has status 200 or 404. Reading its body ends when ctx does, or
// when nothing comes.
func (r *registry) get(ctx context.Context, what, accept string) (*http.Response, error) {
	at := r.URL.JoinPath("v2", r.repository, what)
	resp, err := r.send(ctx, at, accept, r.token)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		challenges := resp.Header.Values("Www-Authenticate")
		_ = resp.Body.Close() // it says what its header says
		if r.token, err = r.authorize(ctx, challenges); err != nil {
			return nil, err
		}
		resp, err = r.send(ctx, at, accept, r.token)
	}
	for hop := 0; err == nil && resp.StatusCode/100 == 3; hop++ {
		to, lerr := resp.Location()
		_ = resp.Body.Close() // what counts is elsewhere
		if lerr != nil || hop == maxRedirects || !hostForm.MatchString(to.Host) {
			return nil, fmt.Errorf("%s sends us from one place to another, and to none in the end", r.name)
		}
		if resp, err = r.send(ctx, to, accept, ""); err != nil {
			return nil, fmt.Errorf("%s keeps it at %s: %w", r.name, to.Hostname(), err)
		}
	}
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound:
		return resp, nil
	}
	_ = resp.Body.Close() // a registry's own words are not needed
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%s does not let us read %s: %s", r.name, r.repository, r.credentialHelp())
	case http.StatusTooManyRequests:
		return nil, fmt.Errorf("%s wants fewer requests: %s", r.name, r.credentialHelp())
	}
	return nil, fmt.Errorf("%s answers with status %d", r.name, resp.StatusCode)
}

func (r *registry) credentialHelp() string {
	if r.Username == "" {
		return "hosting: {registries: {" + r.name + ": {username: ..., password: file:...}}} would say who we are"
	}
	return "is what hosting.registries says of it right?"
}

// send sends one request, under a watch.
func (r *registry) send(ctx context.Context, at *url.URL, accept, token string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{limit: r.stall, cancel: cancel}
	w.timer = time.AfterFunc(r.stall, func() { cancel(errStalled) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		w.stop()
		return nil, fmt.Errorf("%s names an address that cannot be used", r.name)
	}
	req.Header.Set("Accept", accept)
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := r.http.RoundTrip(req)
	if err != nil {
		err = r.broke(ctx, err)
		w.stop()
		return nil, err
	}
	w.timer.Stop()
	w.ReadCloser, w.why = resp.Body, func(err error) error { return r.broke(ctx, err) }
	resp.Body = w
	return resp, nil
}

// broke says why a registry could not be heard. Foreign words are not in it.
func (r *registry) broke(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return fmt.Errorf("%s %w for %s", r.name, errStalled, r.stall)
	} else if cause != nil {
		return cause
	}
	if fault.KindOf(err) == fault.Internal {
		return fmt.Errorf("%s breaks off", r.name)
	}
	return errors.New(fault.Message(err))
}

var errStalled = errors.New("sends nothing")

// watched is a body that is given up when nothing comes.
type watched struct {
	io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	why    func(error) error
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.limit) // it runs only while we wait: we may take our time
	n, err := w.ReadCloser.Read(p)
	w.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = w.why(err)
	}
	return n, err
}

func (w *watched) Close() error {
	defer w.stop()
	return w.ReadCloser.Close()
}

func (w *watched) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// authorize gets what the registry wants to see (docker's token protocol, or Basic).
func (r *registry) authorize(ctx context.Context, challenges []string) (string, error) {
	list, err := oauth.ParseChallenges(challenges)
	if err != nil {
		return "", fmt.Errorf("%s does not say in a way that can be read who may ask", r.name)
	}
	for _, c := range list {
		switch {
		case strings.EqualFold(c.Scheme, "Bearer") && c.Get("realm") != "":
			return r.bearer(ctx, c)
		case strings.EqualFold(c.Scheme, "Basic") && r.Username != "":
			return r.basic(), nil
		}
	}
	return "", fmt.Errorf("%s does not let us read %s: %s", r.name, r.repository, r.credentialHelp())
}

func (r *registry) basic() string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(r.Username, r.Password.Expose())
	return req.Header.Get("Authorization")
}

// bearer asks the realm that the registry names for a token. The password goes there only where that is the registry's own
// site, or what the config names: a registry that was taken over must not be able to send it elsewhere.
func (r *registry) bearer(ctx context.Context, c oauth.Challenge) (string, error) {
	at, err := url.Parse(c.Get("realm"))
	if err != nil || at.User != nil || !hostForm.MatchString(at.Host) {
		return "", fmt.Errorf("%s says that tokens are at an address that cannot be used", r.name)
	}
	token := ""
	if r.Username != "" {
		if named := r.Realm != nil && r.Realm.Scheme == at.Scheme && r.Realm.Host == at.Host; !named && !oauth.SameSite(r.URL.String(), at.String()) {
			return "", fmt.Errorf("%s wants its password sent to %s, which is not its own: where that is right, hosting.registries needs  realm: %s://%s", r.name, at.Host, at.Scheme, at.Host)
		}
		token = r.basic()
	}
	q := at.Query()
	q.Set("scope", "repository:"+r.repository+":pull")
	if s := c.Get("service"); s != "" {
		q.Set("service", s)
	}
	at.RawQuery = q.Encode()
	resp, err := r.send(ctx, at, "application/json", token)
	if err != nil {
		return "", fmt.Errorf("%s keeps its tokens at %s: %w", r.name, at.Hostname(), err)
	}
	defer func() { _ = resp.Body.Close() }() // read by then
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s gives no token for %s (status %d): %s", at.Hostname(), r.repository, resp.StatusCode, r.credentialHelp())
	}
	var a struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if a.Token == "" {
		a.Token = a.AccessToken
	}
	if err != nil || a.Token == "" || strings.ContainsAny(a.Token, "\r\n \x00") {
		return "", fmt.Errorf("%s answers with no token", at.Hostname())
	}
	return "Bearer " + a.Token, nil
}
