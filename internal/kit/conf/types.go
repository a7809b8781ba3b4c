package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Hint is an error of a Scalar that says apart what is wrong and what to write.
type Hint struct{ Message, Help string }

func (h Hint) Error() string { return h.Message + "; " + h.Help }

// Duration is written as in 90s, 15m, 12h.
type Duration time.Duration

// UnmarshalConf implements Scalar.
func (d *Duration) UnmarshalConf(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v <= 0 {
		return Hint{"this is no duration", "write it as 90s, 15m or 12h"}
	}
	*d = Duration(v)
	return nil
}

// Share is a part of a whole, written as 5%.
type Share float64

// UnmarshalConf implements Scalar.
func (s *Share) UnmarshalConf(text string) error {
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !strings.HasSuffix(text, "%") || !(v >= 0 && v <= 100) {
		return Hint{"this is no share", "write it as 5%"}
	}
	*s = Share(v / 100)
	return nil
}

// URL is an absolute http or https URL.
type URL struct{ *url.URL }

// UnmarshalConf implements Scalar.
func (u *URL) UnmarshalConf(text string) error {
	v, err := url.Parse(text)
	switch {
	case err != nil, v.Scheme != "http" && v.Scheme != "https", v.Host == "":
		return Hint{"this is no URL", "write it whole, as https://desk.example.com"}
	case v.User != nil:
		return errors.New("a URL must not hold a user name or password")
	case v.Fragment != "" || v.RawQuery != "":
		return errors.New("this URL must have neither query nor fragment")
	}
	u.URL = v
	return nil
}

// Prefix is an address range, as 10.0.0.0/8, or one address.
type Prefix struct{ netip.Prefix }

// UnmarshalConf implements Scalar.
func (p *Prefix) UnmarshalConf(text string) error {
	if a, err := netip.ParseAddr(text); err == nil {
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	v, err := netip.ParsePrefix(text)
	if err != nil {
		return Hint{"this is no address range", "write it as 10.0.0.0/8"}
	}
	p.Prefix = v.Masked()
	return nil
}

// Secret is a reference to a secret: env:NAME or file:PATH. The file never holds one itself.
type Secret struct{ ref string }

// IsZero reports whether nothing was given.
func (s Secret) IsZero() bool { return s.ref == "" }

// UnmarshalConf implements Scalar.
func (s *Secret) UnmarshalConf(text string) error {
	if !strings.HasPrefix(text, "env:") && !strings.HasPrefix(text, "file:") {
		return Hint{"a secret does not stand in the config", "put it into a file that only you can read and write file:PATH here, or env:NAME for an environment variable"}
	}
	s.ref = text
	return nil
}

// IsFile reports whether the secret stands in a file.
func (s Secret) IsFile() bool { return strings.HasPrefix(s.ref, "file:") }

// Resolve reads the secret; a relative path is one beside the config file.
func (s Secret) Resolve(dir string) (string, error) {
	if name, ok := strings.CutPrefix(s.ref, "env:"); ok {
		v, set := os.LookupEnv(name)
		if !set || v == "" {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		return v, nil
	}
	b, err := os.ReadFile(s.Path(dir))
	if err != nil {
		return "", fmt.Errorf("the file %s cannot be read", strings.TrimPrefix(s.ref, "file:"))
	}
	v := strings.TrimRight(string(b), "\r\n")
	if v == "" {
		return "", fmt.Errorf("the file %s is empty", strings.TrimPrefix(s.ref, "file:"))
	}
	return v, nil
}

// Path is the file that a file: reference names.
func (s Secret) Path(dir string) string {
	name := strings.TrimPrefix(s.ref, "file:")
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}
