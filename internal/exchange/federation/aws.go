package federation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// aws serves aws_web_identity: STS gives keys of a role for the person's token (AssumeRoleWithWebIdentity), and each request to
// the API is signed with them (Signature Version 4) in place of a bearer token.
type aws struct{ *Federation }

const awsSTS = "https://sts.amazonaws.com"

// Ready implements exchange.Method.
func (m *aws) Ready(ctx context.Context, r exchange.Request) error {
	s, err := settings[*catalog.AWS](r)
	if err != nil {
		return err
	}
	return m.ready(ctx, r.Caller, s.Subject)
}

// awsKeys are temporary keys of a role.
type awsKeys struct {
	id, secret, session secret.Text
}

// Obtain implements exchange.Method.
func (m *aws) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.AWS](r)
	if err != nil {
		return nil, err
	}
	sub, key := subject{}, keyOf("aws_web_identity", entry(r))
	if s.Subject != catalog.SubjectSelf {
		if sub, err = m.of(ctx, r.Caller, s.Subject); err != nil {
			return nil, err
		}
		key = keyOf("aws_web_identity", entry(r), sub.mark())
	}
	keys, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (awsKeys, time.Time, error) {
		token := sub.token
		if s.Subject == catalog.SubjectSelf {
			who, err := m.person(ctx, r.Caller, "subject")
			if err != nil {
				return awsKeys{}, time.Time{}, err
			}
			if token, err = m.sign(ctx, r, jwt.TypeJWT, "", assertionLife, statement{"iss": m.Issuer(r.Upstream.Tenant), "sub": who, "aud": s.Audience}); err != nil {
				return awsKeys{}, time.Time{}, err
			}
		}
		keys, ends, err := m.assume(ctx, r, s, token)
		return keys, first(ends, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	return &exchange.Credential{Method: r.Method.Kind, Expires: until, Place: keys.sign(s, m.Now),
		Marks: [][]byte{[]byte(keys.secret.Expose()), []byte(keys.session.Expose())}}, nil
}

// sessionName is what CloudTrail shows: who it was, in the characters that STS takes.
var sessionName = regexp.MustCompile(`[^\w+=,.@-]`)

// assume calls STS; the call is not signed, the token is all the proof there is.
func (m *aws) assume(ctx context.Context, r exchange.Request, s *catalog.AWS, token secret.Text) (awsKeys, time.Time, error) {
	const step = "AWS STS"
	name := sessionName.ReplaceAllString(r.Caller.Principal(), "-")
	form := url.Values{"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {s.Role}, "RoleSessionName": {name[:min(len(name), 64)]},
		"WebIdentityToken": {token.Expose()}}
	if s.Duration > 0 {
		form.Set("DurationSeconds", strconv.Itoa(int(s.Duration.Seconds())))
	}
	if s.Policy != "" {
		form.Set("Policy", s.Policy)
	}
	q, err := http.NewRequest(http.MethodPost, either(s.STS, awsSTS)+"/", strings.NewReader(form.Encode()))
	if err != nil {
		return awsKeys{}, time.Time{}, err
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, answer, err := m.call(ctx, q)
	if err != nil || status != http.StatusOK {
		return awsKeys{}, time.Time{}, answered(r, step, status, err)
	}
	var a struct {
		ID      string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>AccessKeyId"`
		Secret  string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SecretAccessKey"`
		Session string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SessionToken"`
		Expires time.Time `xml:"AssumeRoleWithWebIdentityResult>Credentials>Expiration"`
	}
	if xml.Unmarshal(answer, &a) != nil || !usable(a.ID) || !usable(a.Secret) || !usable(a.Session) {
		return awsKeys{}, time.Time{}, answered(r, step, status, nil)
	}
	return awsKeys{secret.New(a.ID), secret.New(a.Secret), secret.New(a.Session)}, a.Expires, nil
}

// maxSigned bounds the body that is held in memory to be signed. S3 takes larger ones, unsigned, within TLS.
const maxSigned = 16 << 20

// sign returns what signs a request whole. It goes last: nothing on the request may change afterwards.
func (k awsKeys) sign(s *catalog.AWS, now func() time.Time) func(*http.Request) error {
	signer := v4.NewSigner()
	return func(r *http.Request) error {
		service, region := s.Service, s.Region
		if service == "" || region == "" {
			fromHost, at := awsHost(r.URL.Hostname())
			service, region = either(service, fromHost), either(region, at)
		}
		if service == "" || region == "" {
			return fault.New(fault.Denied, "the host does not say which AWS service and region it is; an operator can name them in the config", nil)
		}
		hash, err := payloadHash(r, service)
		if err != nil {
			return err
		}
		r.Header.Set("X-Amz-Content-Sha256", hash)
		r.Header.Del("Authorization")
		return signer.SignHTTP(r.Context(), awssdk.Credentials{AccessKeyID: k.id.Expose(), SecretAccessKey: k.secret.Expose(), SessionToken: k.session.Expose()}, r, hash, service, region, now(),
			func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	}
}

// payloadHash is the hash of the body, which is read for it and put back.
func payloadHash(r *http.Request, service string) (string, error) {
	if r.Body == nil || r.Body == http.NoBody {
		sum := sha256.Sum256(nil)
		return hex.EncodeToString(sum[:]), nil
	}
	if service == "s3" && r.URL.Scheme == "https" {
		return "UNSIGNED-PAYLOAD", nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxSigned+1))
	if err != nil {
		return "", err
	}
	if len(body) > maxSigned {
		return "", fault.New(fault.Invalid, "the body is larger than 16 MiB, and this API wants it signed; send it in parts", nil)
	}
	_ = r.Body.Close() // it was read whole
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

// awsHost reads service and region from a host of the form service.region.amazonaws.com; bucket names before it belong to S3.
func awsHost(host string) (service, region string) {
	rest, ok := strings.CutSuffix(host, ".amazonaws.com")
	if !ok {
		return "", ""
	}
	parts := strings.Split(rest, ".")
	if len(parts) < 2 {
		return parts[0], "us-east-1" // global endpoints: iam, sts
	}
	return parts[len(parts)-2], parts[len(parts)-1]
}
