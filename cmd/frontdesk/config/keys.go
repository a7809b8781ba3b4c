package config

import (
	"os"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/conf"
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

// WrappingKey is what wraps the vault's keys: a file, or a service.
type WrappingKey struct {
	File    string      `yaml:"file" doc:"key file"`
	Service *KeyService `yaml:"service" doc:"service"`
}

// URLs are the addresses that a service is asked at.
func (s *KeyService) URLs() []string {
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
		k.wrong("keys.service", "keys.service names "+strconv.Itoa(s.count())+" services, not one", "keep one of aws, google, azure and transit")
	}
	if r := k.Keys.Rotate; r != nil && *r < 0 {
		k.wrong("keys.rotate_days", "rotate_days is not below 0", "write 0 where keys are to be rotated only when asked")
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

// audit checks what the form cannot say of the log.
func (k *checker) audit() {
	for i, p := range k.Audit.Checkpoints {
		at := "audit.checkpoints[" + strconv.Itoa(i) + "]"
		switch {
		case (p.File == "") == (p.URL == nil):
			k.wrong(at, "a place for checkpoints is a file, or a URL", "write  {file: /mnt/log/frontdesk.checkpoints}  or  {url: https://witness.example.com/frontdesk}")
		case p.URL == nil && (p.Method != "" || !p.Token.IsZero()):
			k.wrong(at, "method and token are for a URL", "")
		case p.URL != nil && p.URL.Scheme != "https" && !k.local():
			k.wrong(at+".url", "checkpoints are sent by https", "")
		case p.Method != "" && p.Method != "PUT" && p.Method != "POST":
			k.wrong(at+".method", "method is PUT or POST", "")
		}
	}
}

// defaultRotate is how many days a key is used.
const defaultRotate = 30

// RotateEvery is how long a key is used before a new one follows it; zero: until somebody asks.
func (c *Config) RotateEvery() time.Duration {
	days := defaultRotate
	if c.Keys.Rotate != nil {
		days = *c.Keys.Rotate
	}
	return time.Duration(days) * 24 * time.Hour
}

func previousService(p *WrappingKey) *KeyService {
	if p == nil {
		return nil
	}
	return p.Service
}

// KeyPlace says where the wrapping key is.
func (c *Config) KeyPlace() string {
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
