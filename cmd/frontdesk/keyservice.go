package main

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

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// KeyService is a service that wraps the vault's keys and keeps its own to itself: exactly one of them.
type KeyService struct {
	AWS     *AWSKey     `yaml:"aws" doc:"AWS KMS; credentials as of the AWS SDK: environment, profile, web identity"`
	Google  *GoogleKey  `yaml:"google" doc:"Google Cloud KMS; credentials by GOOGLE_APPLICATION_CREDENTIALS"`
	Azure   *AzureKey   `yaml:"azure" doc:"Azure Key Vault"`
	Transit *TransitKey `yaml:"transit" doc:"HashiCorp Vault or OpenBao, transit engine"`
}

// AWSKey is a key of AWS KMS.
type AWSKey struct {
	Key    string    `yaml:"key" required:"yes" doc:"ARN of a symmetric key, or of an alias"`
	Region string    `yaml:"region" required:"yes" doc:"its region"`
	URL    *conf.URL `yaml:"url" doc:"endpoint; default: the region's"`
}

// GoogleKey is a key of Google Cloud KMS.
type GoogleKey struct {
	Key string    `yaml:"key" required:"yes" doc:"projects/P/locations/L/keyRings/R/cryptoKeys/K, symmetric"`
	URL *conf.URL `yaml:"url" doc:"endpoint; default https://cloudkms.googleapis.com"`
}

// AzureKey is a key of Azure Key Vault.
type AzureKey struct {
	Key          conf.URL    `yaml:"key" required:"yes" doc:"https://NAME.vault.azure.net/keys/KEY/VERSION, RSA"`
	Tenant       string      `yaml:"tenant_id" required:"yes" doc:"Entra tenant"`
	ClientID     string      `yaml:"client_id" required:"yes" doc:"application that may wrap and unwrap"`
	ClientSecret conf.Secret `yaml:"client_secret" doc:"its secret; without one, the token in the file that AZURE_FEDERATED_TOKEN_FILE names"`
	Login        *conf.URL   `yaml:"login_url" doc:"default https://login.microsoftonline.com"`
}

// TransitKey is a key of a transit engine.
type TransitKey struct {
	URL   conf.URL    `yaml:"url" required:"yes" doc:"of the server"`
	Key   string      `yaml:"key" required:"yes" doc:"name of an AEAD key, as aes256-gcm96"`
	Mount string      `yaml:"mount" doc:"of the engine; default transit"`
	Token conf.Secret `yaml:"token" required:"yes" doc:"as file:vault.token; the file is read at each call, so an agent may renew it"`
}

// PreviousKey is what wrapped the vault's keys until now.
type PreviousKey struct {
	File    string      `yaml:"file" doc:"key file"`
	Service *KeyService `yaml:"service" doc:"service"`
}

// urls are the addresses that a service is asked at.
func (s *KeyService) urls() []string {
	or := func(u *conf.URL, standard string) string {
		if u != nil {
			return u.String()
		}
		return standard
	}
	switch {
	case s == nil:
	case s.AWS != nil:
		return []string{or(s.AWS.URL, "https://kms."+s.AWS.Region+".amazonaws.com")}
	case s.Google != nil:
		return []string{or(s.Google.URL, "https://cloudkms.googleapis.com")}
	case s.Azure != nil:
		return []string{s.Azure.Key.String(), or(s.Azure.Login, "https://login.microsoftonline.com")}
	case s.Transit != nil:
		return []string{s.Transit.URL.String()}
	}
	return nil
}

func (s *KeyService) count() int {
	n := 0
	for _, is := range []bool{s.AWS != nil, s.Google != nil, s.Azure != nil, s.Transit != nil} {
		if is {
			n++
		}
	}
	return n
}

// keyring checks what the form cannot say of keys.
func (k *checker) keyring() {
	if s := k.Keys.Service; s != nil && s.count() != 1 {
		k.wrong("keys.service", "keys.service names "+plural(s.count(), "service", "services")+", not one", "keep one of aws, google, azure and transit")
	}
	if p := k.Keys.Previous; p != nil && (p.File == "") == (p.Service == nil) {
		k.wrong("keys.previous", "keys.previous is a file, or a service", "write  previous: {file: PATH}  or  previous: {service: {…}}")
	}
	for at, s := range map[string]*KeyService{"keys.service": k.Keys.Service, "keys.previous.service": previousService(k.Keys.Previous)} {
		if s != nil && s.Azure != nil && s.Azure.ClientSecret.IsZero() && os.Getenv("AZURE_FEDERATED_TOKEN_FILE") == "" {
			k.wrong(at+".azure", "nothing proves this application to Azure", "add client_secret: file:azure.secret, or set AZURE_FEDERATED_TOKEN_FILE")
		}
	}
}

func previousService(p *PreviousKey) *KeyService {
	if p == nil {
		return nil
	}
	return p.Service
}

// wrappers are what wraps the vault's keys, and what opens those that the one before it wrapped.
func (c *Config) wrappers(ctx context.Context, door *outbound.Door, fresh bool, now func() time.Time) (current, all vault.Wrapper, err error) {
	if current, err = c.wrapper(ctx, door, c.Keys.Vault, c.Keys.Service, fresh && c.Keys.Previous == nil, now); err != nil {
		return nil, nil, err
	}
	if c.Keys.Previous == nil {
		return current, current, nil
	}
	before, err := c.wrapper(ctx, door, c.Keys.Previous.File, c.Keys.Previous.Service, false, now)
	if err != nil {
		return nil, nil, fmt.Errorf("keys.previous: %w", err)
	}
	return current, kms.Chain{current, before}, nil
}

func (c *Config) wrapper(ctx context.Context, door *outbound.Door, file string, s *KeyService, create bool, now func() time.Time) (vault.Wrapper, error) {
	if s == nil {
		return kms.OpenKeyFile(inDir(".", file), create)
	}
	w, err := c.service(ctx, door, s, now)
	if err != nil {
		return nil, err
	}
	return &kms.Cached{Wrapper: w, Now: now}, nil
}

func (c *Config) service(ctx context.Context, door *outbound.Door, s *KeyService, now func() time.Time) (kms.Wrapper, error) {
	found, at := door.Found(), s.urls()
	switch {
	case s.AWS != nil:
		sdk, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(found.Library()), awsconfig.WithRegion(s.AWS.Region))
		if err != nil {
			return nil, fmt.Errorf("keys.service.aws: no credentials: %w", err)
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
			v, err := s.Azure.ClientSecret.Resolve(c.dir)
			if err != nil {
				return nil, fmt.Errorf("keys.service.azure.client_secret: %w", err)
			}
			entra.endpoint.Secret = secret.New(v)
		}
		return &kms.Azure{HTTP: found, Key: at[0], Tokens: oauth2.ReuseTokenSource(nil, entra)}, nil
	case s.Transit != nil:
		ref := s.Transit.Token
		return &kms.Transit{HTTP: found, URL: at[0], Mount: s.Transit.Mount, Key: s.Transit.Key, Token: func() (secret.Text, error) {
			v, err := ref.Resolve(c.dir)
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

// rewrap moves every key under the current provider, where the config names the one before it.
func (d *desk) rewrap(ctx context.Context, cfg *Config, current, all vault.Wrapper, tenants []identity.Tenant) error {
	if cfg.Keys.Previous == nil {
		return nil
	}
	n, err := vault.Rewrap(ctx, d.db, all, current, tenants)
	if err != nil {
		return fmt.Errorf("keys.previous: %w", err)
	}
	d.log.Info("keys are wrapped by the current provider alone; keys.previous can leave the config once every replica runs with this one", "wrapped_anew", n)
	return nil
}

// keyPlace says where the wrapping key is.
func (c *Config) keyPlace() string {
	switch s := c.Keys.Service; {
	case s == nil:
		return c.Keys.Vault
	case s.AWS != nil:
		return "AWS KMS " + s.AWS.Key
	case s.Google != nil:
		return "Google Cloud KMS " + s.Google.Key
	case s.Azure != nil:
		return s.Azure.Key.String()
	default:
		return s.Transit.URL.String() + " transit key " + s.Transit.Key
	}
}
