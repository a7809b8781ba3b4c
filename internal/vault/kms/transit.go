package kms

import (
	"context"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Transit wraps with a key of HashiCorp Vault's, or OpenBao's, transit engine. The key must be of an AEAD type (the default,
// aes256-gcm96, is): the context is its associated data.
type Transit struct {
	HTTP  Doer
	URL   string // base of the server, as https://vault.example.com:8200
	Mount string // of the engine; "" is transit
	Key   string
	Token func() (secret.Text, error) // read at each call, so that whoever renews it only writes the file anew
}

type transitBody struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Context    []byte `json:"associated_data"`
}

func (t *Transit) call(ctx context.Context, verb string, body transitBody) (transitBody, error) {
	mount := t.Mount
	if mount == "" {
		mount = "transit"
	}
	r, err := post(strings.TrimSuffix(t.URL, "/")+"/v1/"+mount+"/"+verb+"/"+url.PathEscape(t.Key), body)
	if err != nil {
		return transitBody{}, err
	}
	token, err := t.Token()
	if err != nil {
		return transitBody{}, unproven(nameTransit, err)
	}
	r.Header.Set("X-Vault-Token", token.Expose())
	r.Header.Set("X-Vault-Request", "true")
	var answer struct{ Data transitBody }
	err = call(ctx, t.HTTP, nameTransit, r, &answer)
	return answer.Data, err
}

// Wrap implements Wrapper.
func (t *Transit) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	a, err := t.call(ctx, "encrypt", transitBody{Plaintext: plain, Context: context})
	if err == nil && !strings.HasPrefix(a.Ciphertext, "vault:") {
		err = errEmpty
	}
	return []byte(a.Ciphertext), err
}

// Unwrap implements Wrapper.
func (t *Transit) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	a, err := t.call(ctx, "decrypt", transitBody{Ciphertext: string(wrapped), Context: context})
	if err == nil && len(a.Plaintext) == 0 {
		err = errEmpty
	}
	return a.Plaintext, err
}
