//go:build kms

package kms_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// TestAgainstMoto wraps with AWS KMS as moto plays it, whose code is not ours: `make kms` starts it.
func TestAgainstMoto(t *testing.T) {
	url := os.Getenv("MOTO_URL")
	if url == "" {
		t.Fatal("MOTO_URL names no server: run `make kms`")
	}
	send := doer{http.DefaultTransport}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", strings.NewReader(`{"Description":"desk"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "TrentService.CreateKey")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261125/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := send.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var key struct{ KeyMetadata struct{ Arn string } }
	if err := json.NewDecoder(resp.Body).Decode(&key); err != nil || key.KeyMetadata.Arn == "" {
		t.Fatalf("no key was made: %v", err)
	}
	w := &kms.AWS{HTTP: send, Key: key.KeyMetadata.Arn, Region: "eu-central-1", URL: url, Credentials: keys{}, Now: time.Now}
	plain := bytes.Repeat([]byte("keyset"), 60)
	wrapped, err := w.Wrap(t.Context(), plain, []byte("tenant a"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.Unwrap(t.Context(), wrapped, []byte("tenant a")); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("unwrapped %d bytes, %v", len(got), err)
	}
	if _, err := w.Unwrap(t.Context(), wrapped, []byte("tenant b")); err == nil {
		t.Error("it opens in another place than its own")
	}
}
