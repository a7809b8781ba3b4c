package kms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/oauth2"
)

// Azure wraps with an RSA key of Azure Key Vault. Such a key takes some 200 bytes and knows no context, so it wraps a fresh
// AES-256 key each time, and that one seals the keyset with the context as associated data.
type Azure struct {
	HTTP   Doer
	Key    string // https://NAME.vault.azure.net/keys/KEY/VERSION
	Tokens oauth2.TokenSource
}

const azureAPI = "?api-version=7.4"

type azureBody struct {
	Algorithm string `json:"alg,omitempty"`
	Value     string `json:"value"`
}

func (a *Azure) call(ctx context.Context, verb string, value []byte) ([]byte, error) {
	r, err := post(strings.TrimSuffix(a.Key, "/")+"/"+verb+azureAPI, azureBody{Algorithm: "RSA-OAEP-256", Value: base64.RawURLEncoding.EncodeToString(value)})
	if err != nil {
		return nil, err
	}
	token, err := a.Tokens.Token()
	if err != nil {
		return nil, unproven(nameAzure, err)
	}
	token.SetAuthHeader(r)
	var answer azureBody
	if err := call(ctx, a.HTTP, nameAzure, r, &answer); err != nil {
		return nil, err
	}
	out, err := base64.RawURLEncoding.DecodeString(answer.Value)
	if err == nil && len(out) == 0 {
		err = errEmpty
	}
	return out, err
}

// Wrap implements Wrapper: wrapped key (with its length) ‖ nonce ‖ sealed keyset.
func (a *Azure) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	defer clear(key)
	wrapped, err := a.call(ctx, "wrapkey", key)
	if err != nil {
		return nil, err
	}
	g, err := gcm(key)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(wrapped)))
	out = append(out, wrapped...)
	return g.Seal(out, nil, plain, context), nil
}

// Unwrap implements Wrapper.
func (a *Azure) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	if len(wrapped) < 2 || len(wrapped) < 2+int(binary.BigEndian.Uint16(wrapped)) {
		return nil, errors.New("kms: this was not wrapped by Azure Key Vault")
	}
	n := 2 + int(binary.BigEndian.Uint16(wrapped))
	key, err := a.call(ctx, "unwrapkey", wrapped[2:n])
	if err != nil {
		return nil, err
	}
	defer clear(key)
	g, err := gcm(key)
	if err != nil {
		return nil, err
	}
	return g.Open(nil, nil, wrapped[n:], context)
}

func gcm(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}
