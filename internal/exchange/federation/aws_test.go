package federation_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	awsID, awsSecret, awsSession = "ASIAEXAMPLEKEYID", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token-of-the-role"
)

func TestAWSWebIdentity(t *testing.T) {
	b := newBench(t)
	_, id := b.signedIn(time.Hour)
	ends := b.now.Add(20 * time.Minute).UTC().Truncate(time.Second)
	b.on("POST /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>
			</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, awsID, awsSecret, awsSession, ends.Format(time.RFC3339))
	})
	m := catalog.Method{Kind: catalog.AWSWebIdentity, Settings: &catalog.AWS{Role: "arn:aws:iam::123456789012:role/agents", Subject: catalog.SubjectID, STS: b.other.URL, Duration: time.Hour}}
	cred, err := b.f.Methods()[m.Kind].Obtain(t.Context(), b.request(b.alice(), m))
	if err != nil {
		t.Fatal(err)
	}
	form := b.last("POST /")
	for name, want := range map[string]string{"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": "arn:aws:iam::123456789012:role/agents", "WebIdentityToken": id,
		"RoleSessionName": string(b.user.ID), "DurationSeconds": "3600"} {
		if got := form.Get(name); got != want {
			t.Errorf("STS was asked with %s=%q, want %q", name, got, want)
		}
	}
	if cred.Expires.After(ends) || len(cred.Marks) != 2 {
		t.Errorf("kept until %s (keys end at %s), %d marks", cred.Expires, ends, len(cred.Marks))
	}
	for name, test := range map[string]struct{ method, url, body, service string }{
		"a read":              {http.MethodGet, "https://dynamodb.eu-central-1.amazonaws.com/?b=2&a=1", "", "eu-central-1/dynamodb"},
		"a write, signed":     {http.MethodPost, "https://dynamodb.eu-central-1.amazonaws.com/", `{"TableName":"t"}`, "eu-central-1/dynamodb"},
		"a global endpoint":   {http.MethodPost, "https://iam.amazonaws.com/", "Action=ListRoles", "us-east-1/iam"},
		"a bucket, streaming": {http.MethodPut, "https://pictures.s3.eu-west-1.amazonaws.com/a%20b", "bytes", "eu-west-1/s3"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.url, strings.NewReader(test.body))
			if test.body == "" {
				r.Body = http.NoBody
			}
			r.Header.Set("Authorization", "Bearer keycard")
			if err := cred.Place(r); err != nil {
				t.Fatal(err)
			}
			if line := r.Header.Get("Authorization"); !strings.Contains(line, test.service+"/aws4_request") || strings.Contains(line, "keycard") {
				t.Fatalf("signed as %q", line)
			}
			body, _ := io.ReadAll(r.Body)
			if string(body) != test.body {
				t.Errorf("the body became %q", body)
			}
			verifySigV4(t, r, test.body)
		})
	}
	r := httptest.NewRequest(http.MethodGet, "https://internal.example.com/", nil)
	if err := cred.Place(r); fault.KindOf(err) != fault.Denied {
		t.Errorf("a host that says no service: %v", err)
	}
}

// verifySigV4 computes the signature anew, by the published steps of Signature Version 4.
func verifySigV4(t *testing.T, r *http.Request, body string) {
	t.Helper()
	line := strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	parts := map[string]string{}
	for p := range strings.SplitSeq(line, ", ") {
		k, v, _ := strings.Cut(p, "=")
		parts[k] = v
	}
	var head strings.Builder
	for name := range strings.SplitSeq(parts["SignedHeaders"], ";") {
		v := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			v = r.Host
		case "content-length":
			v = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&head, "%s:%s\n", name, strings.TrimSpace(v))
	}
	query := strings.Split(r.URL.RawQuery, "&")
	slices.Sort(query)
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
		hash = "UNSIGNED-PAYLOAD"
	}
	path := r.URL.EscapedPath()
	canonical := strings.Join([]string{r.Method, path, strings.Join(query, "&"), head.String(), parts["SignedHeaders"], hash}, "\n")
	key, scope, _ := strings.Cut(parts["Credential"], "/")
	sum = sha256.Sum256([]byte(canonical))
	date := r.Header.Get("X-Amz-Date")
	toSign := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	mac := func(key []byte, data string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(data))
		return h.Sum(nil)
	}
	k := []byte("AWS4" + awsSecret)
	for part := range strings.SplitSeq(scope, "/") {
		k = mac(k, part)
	}
	if want := hex.EncodeToString(mac(k, toSign)); key != awsID || parts["Signature"] != want {
		t.Errorf("key %q, signature %s, want %s of\n%s", key, parts["Signature"], want, canonical)
	}
	if r.Header.Get("X-Amz-Security-Token") != awsSession {
		t.Error("the session token is missing")
	}
}
