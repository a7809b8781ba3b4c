package premises

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// Wrappers are what wraps the vault's keys, and what opens those that the one before it wrapped.
func Wrappers(ctx context.Context, c *config.Config, door *outbound.Door, fresh bool, now func() time.Time) (current, all keyring.Wrapper, err error) {
	if fresh && c.Keys.Service == nil && c.Keys.Previous == nil {
		if current, err = kms.OpenKeyFile(c.Keys.Vault, true); err != nil {
			return nil, nil, err
		}
		return current, current, nil
	}
	if current, err = wrapper(ctx, c, door, config.WrappingKey{File: c.Keys.Vault, Service: c.Keys.Service}, now); err != nil {
		return nil, nil, err
	}
	if c.Keys.Previous == nil {
		return current, current, nil
	}
	before, err := wrapper(ctx, c, door, *c.Keys.Previous, now)
	if err != nil {
		return nil, nil, fmt.Errorf("keys.previous: %w", err)
	}
	return current, kms.Chain{current, before}, nil
}

func wrapper(ctx context.Context, c *config.Config, door *outbound.Door, from config.WrappingKey, now func() time.Time) (keyring.Wrapper, error) {
	if from.Service == nil {
		return kms.OpenKeyFile(from.File, false)
	}
	w, err := service(ctx, c, door, from.Service, now)
	if err != nil {
		return nil, err
	}
	return &kms.Cached{Wrapper: w, Now: now}, nil
}

func service(ctx context.Context, c *config.Config, door *outbound.Door, s *config.KeyService, now func() time.Time) (kms.Wrapper, error) {
	found, at := door.Found(), s.URLs()
	switch {
	case s.AWS != nil:
		// Whom we trust is for outbound.ca_file to say, and the SDK refuses every client but its own where this is set.
		if err := os.Unsetenv("AWS_CA_BUNDLE"); err != nil {
			return nil, err
		}
		sdk, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(found.Library()), awsconfig.WithRegion(s.AWS.Region))
		if err != nil {
			return nil, fmt.Errorf("keys.service.aws: the AWS environment or profile cannot be used (a profile with ca_bundle cannot: name its file as outbound.ca_file): %w", err)
		}
		return &kms.AWS{HTTP: found, Key: s.AWS.Key, Region: s.AWS.Region, URL: at[0], Credentials: sdk.Credentials, Now: now}, nil
	case s.Google != nil:
		creds, err := google.FindDefaultCredentials(found.Into(ctx), "https://www.googleapis.com/auth/cloudkms")
		if err != nil {
			return nil, fmt.Errorf("keys.service.google: no credentials: set GOOGLE_APPLICATION_CREDENTIALS: %w", err)
		}
		return &kms.Google{HTTP: found, Key: s.Google.Key, URL: at[0], Tokens: creds.TokenSource}, nil
	case s.Azure != nil:
		entra := &entraTokens{client: oauth.Client{HTTP: found, Now: now}, now: now, endpoint: oauth.Endpoint{
			URL: strings.TrimSuffix(at[1], "/") + "/" + url.PathEscape(s.Azure.Tenant) + "/oauth2/v2.0/token", ClientID: s.Azure.ClientID, Auth: oauth.AuthPost}}
		if s.Azure.ClientSecret.IsZero() {
			entra.endpoint.Auth, entra.endpoint.Assert = oauth.AuthJWT, func(context.Context) (secret.Text, error) {
				token, err := os.ReadFile(os.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
				return secret.New(strings.TrimSpace(string(token))), err
			}
		} else {
			v, err := c.Secret(s.Azure.ClientSecret)
			if err != nil {
				return nil, fmt.Errorf("keys.service.azure.client_secret: %w", err)
			}
			entra.endpoint.Secret = secret.New(v)
		}
		return &kms.Azure{HTTP: found, Key: at[0], Tokens: oauth2.ReuseTokenSource(nil, entra)}, nil
	case s.Transit != nil:
		ref := s.Transit.Token
		return &kms.Transit{HTTP: found, URL: at[0], Mount: s.Transit.Mount, Key: s.Transit.Key, Token: func() (secret.Text, error) {
			v, err := c.Secret(ref)
			return secret.New(v), err
		}}, nil
	}
	return nil, errors.New("keys.service names no service")
}

// entraTokens gets tokens for Azure Key Vault.
type entraTokens struct {
	client   oauth.Client
	endpoint oauth.Endpoint
	now      func() time.Time
}

// Token implements oauth2.TokenSource.
func (e *entraTokens) Token() (*oauth2.Token, error) {
	t, err := e.client.ClientCredentials(context.Background(), e.endpoint, []string{"https://vault.azure.net/.default"}, nil)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: t.Access.Expose(), Expiry: t.Expires}, nil
}
