package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"golang.org/x/oauth2"
)

// AWS wraps with a symmetric key of AWS KMS. The context is its encryption context, so IAM policies and CloudTrail see which
// keyset of which tenant is asked for.
type AWS struct {
	HTTP        Doer
	Key         string // ARN, or alias ARN
	Region      string
	URL         string // "": the region's endpoint
	Credentials aws.CredentialsProvider
	Now         func() time.Time
}

// What the services are called in sentences for people.
const (
	nameAWS     = "AWS KMS"
	nameGoogle  = "Google Cloud KMS"
	nameAzure   = "Azure Key Vault"
	nameTransit = "Vault Transit"
)

type awsBody struct {
	KeyID      string            `json:"KeyId,omitempty"`
	Plaintext  []byte            `json:",omitempty"`
	Ciphertext []byte            `json:"CiphertextBlob,omitempty"`
	Context    map[string]string `json:"EncryptionContext,omitempty"`
}

func (a *AWS) call(ctx context.Context, action string, body awsBody, bound []byte) (awsBody, error) {
	body.KeyID, body.Context = a.Key, map[string]string{"frontdesk": hex.EncodeToString(bound)}
	url := a.URL
	if url == "" {
		url = "https://kms." + a.Region + ".amazonaws.com"
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return awsBody{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/", bytes.NewReader(raw))
	if err != nil {
		return awsBody{}, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+action)
	proving, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	keys, err := a.Credentials.Retrieve(proving)
	if err != nil {
		return awsBody{}, unproven(nameAWS, err)
	}
	sum := sha256.Sum256(raw)
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(sum[:]), "kms", a.Region, a.Now()); err != nil {
		return awsBody{}, err
	}
	var answer awsBody
	err = call(ctx, a.HTTP, nameAWS, r, &answer)
	return answer, err
}

// Wrap implements Wrapper.
func (a *AWS) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	b, err := a.call(ctx, "Encrypt", awsBody{Plaintext: plain}, context)
	if err == nil && len(b.Ciphertext) == 0 {
		err = errEmpty
	}
	return b.Ciphertext, err
}

// Unwrap implements Wrapper.
func (a *AWS) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	b, err := a.call(ctx, "Decrypt", awsBody{Ciphertext: wrapped}, context)
	if err == nil && len(b.Plaintext) == 0 {
		err = errEmpty
	}
	return b.Plaintext, err
}

// Google wraps with a symmetric key of Google Cloud KMS. The context is its additional authenticated data.
type Google struct {
	HTTP   Doer
	Key    string // projects/…/locations/…/keyRings/…/cryptoKeys/…
	URL    string // "": https://cloudkms.googleapis.com
	Tokens oauth2.TokenSource
}

type googleBody struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext []byte `json:"ciphertext,omitempty"`
	Context    []byte `json:"additionalAuthenticatedData,omitempty"`
}

func (g *Google) call(ctx context.Context, verb string, body googleBody) (googleBody, error) {
	url := g.URL
	if url == "" {
		url = "https://cloudkms.googleapis.com"
	}
	r, err := post(strings.TrimSuffix(url, "/")+"/v1/"+g.Key+":"+verb, body)
	if err != nil {
		return googleBody{}, err
	}
	token, err := g.Tokens.Token()
	if err != nil {
		return googleBody{}, unproven(nameGoogle, err)
	}
	token.SetAuthHeader(r)
	var answer googleBody
	err = call(ctx, g.HTTP, nameGoogle, r, &answer)
	return answer, err
}

// Wrap implements Wrapper.
func (g *Google) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	b, err := g.call(ctx, "encrypt", googleBody{Plaintext: plain, Context: context})
	if err == nil && len(b.Ciphertext) == 0 {
		err = errEmpty
	}
	return b.Ciphertext, err
}

// Unwrap implements Wrapper.
func (g *Google) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	b, err := g.call(ctx, "decrypt", googleBody{Ciphertext: wrapped, Context: context})
	if err == nil && len(b.Plaintext) == 0 {
		err = errEmpty
	}
	return b.Plaintext, err
}
