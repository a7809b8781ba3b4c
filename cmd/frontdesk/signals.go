package main

import (
	"crypto/sha256"
	"fmt"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/signals"
)

// minToken is how long a bearer token of a sender has to be: nobody guesses it, however often he may try.
const minToken = 20

const endAndRevoke = "end_and_revoke"

// signals checks what the config says of hearing from the IdP.
func (k *checker) signals(at string, idp *IDP) {
	if idp == nil {
		return
	}
	if r := idp.OnRevoke; r != "" && r != "end" && r != endAndRevoke {
		k.wrong(at+".on_revoke", "on_revoke is end or "+endAndRevoke, "")
	}
	if idp.SCIM != nil && idp.SCIM.UserName != "" && idp.SCIM.UserName != "email" && idp.SCIM.UserName != "subject" {
		k.wrong(at+".scim.user_name", "user_name is email or subject", "")
	}
}

// receivers hear for each tenant whose IdP has something to say.
func (d *desk) receivers(cfg *Config, idps []*identity.IdP) (map[identity.Tenant]*signals.Receiver, conf.Problems) {
	all, problems := map[identity.Tenant]*signals.Receiver{}, conf.Problems{}
	digest := func(at string, s conf.Secret) (sum [32]byte) {
		v, err := s.Resolve(cfg.dir)
		if err == nil && len(v) < minToken {
			err = fmt.Errorf("this bearer token is shorter than %d characters; make a random one, as by openssl rand -hex 32", minToken)
		}
		if err != nil {
			problems = append(problems, cfg.doc.Problem(at, err.Error(), ""))
			return sum
		}
		return sha256.Sum256([]byte(v))
	}
	for _, idp := range idps {
		t := idp.Tenant
		said := cfg.tenants()[t].IDP
		r := &signals.Receiver{Tenant: t, IDP: idp, Logout: said.Logout == nil || *said.Logout, Office: d.office, People: d.db, Users: d.db, Messages: d.db,
			URL: func(path string) string { return cfg.at(t) + path }, Log: d.log, Now: d.now}
		if e := said.Events; e != nil {
			r.Events = &signals.Events{Issuer: idp.Issuer, Audience: e.Audience, Keys: idp, Token: digest(place(t, "idp.events.token"), e.Token), Email: e.Email, Revoke: said.OnRevoke == endAndRevoke}
			if e.Issuer != nil {
				r.Events.Issuer = e.Issuer.String()
			}
			switch {
			case e.JWKS != nil:
				keys, err := oauth.NewKeySet(e.JWKS.String(), d.door.Found(), d.now, d.log)
				if err != nil {
					problems = append(problems, cfg.doc.Problem(place(t, "idp.events.jwks_uri"), err.Error(), ""))
					continue
				}
				r.Events.Keys = keys
			case r.Events.Issuer != idp.Issuer:
				r.Events.Keys = &oauth.Transmitter{Issuer: r.Events.Issuer, HTTP: d.door.Found(), Now: d.now, Log: d.log}
			}
		}
		if s := said.SCIM; s != nil {
			r.Directory = &signals.Directory{Token: digest(place(t, "idp.scim.token"), s.Token), UserName: cmpOr(s.UserName, "email"), Revoke: said.OnRevoke == endAndRevoke}
		}
		all[t] = r
	}
	return all, problems
}

// heard are the addresses at which the IdP says that something has ended.
func (idp *IDP) heard(at string) []string {
	var l []string
	name := cmpOr(idp.Name, "login")
	if idp.Logout == nil || *idp.Logout {
		l = append(l, fmt.Sprintf("%s/backchannel-logout/%s  (back-channel logout URI at %s)", at, name, idp.Issuer.Host))
	}
	if idp.Events != nil {
		l = append(l, fmt.Sprintf("%s/events/%s  (receiver of security events, RFC 8935 push)", at, name))
	}
	if idp.SCIM != nil {
		l = append(l, at+"/scim/v2  (SCIM 2.0, for the directory)")
	}
	return l
}
