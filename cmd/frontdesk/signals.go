package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/signals"
)

// receivers hear for each tenant whose IdP has something to say.
func (d *desk) receivers(cfg *config.Config, idps []*identity.IdP) (map[identity.Tenant]*signals.Receiver, conf.Problems) {
	all, problems := map[identity.Tenant]*signals.Receiver{}, conf.Problems{}
	digest := func(at string, s conf.Secret) (sum [32]byte) {
		if s.IsZero() {
			return sum // which no token has
		}
		v, err := cfg.Secret(s)
		if err == nil && len(v) < config.MinToken {
			err = fmt.Errorf("this bearer token is shorter than %d characters; make a random one, as by openssl rand -hex 32", config.MinToken)
		}
		if err != nil {
			problems = append(problems, cfg.Problem(at, err.Error(), ""))
			return sum
		}
		return sha256.Sum256([]byte(v))
	}
	for _, idp := range idps {
		t := idp.Tenant
		said := cfg.Organisations()[t].IDP
		r := &signals.Receiver{Tenant: t, IDP: idp, Logout: said.Logout == nil || *said.Logout, Office: d.office, People: d.db, Users: d.db, Messages: d.db,
			URL: func(path string) string { return cfg.Issuer(t) + path }, Log: d.log, Now: d.now}
		if e := said.Events; e != nil {
			r.Events = &signals.Events{Issuer: idp.Issuer, Audience: e.Audience, Keys: idp, Token: digest(config.Place(t, "idp.events.token"), e.Token), Email: e.Email, Revoke: said.OnRevoke == config.EndAndRevoke}
			if e.Issuer != nil {
				r.Events.Issuer = e.Issuer.String()
			}
			r.Events.Stream = d.stream(cfg, e, r.Events.Issuer)
			switch {
			case e.JWKS != nil:
				keys, err := oauth.NewKeySet(e.JWKS.String(), d.door.Found(), d.now, d.log)
				if err != nil {
					problems = append(problems, cfg.Problem(config.Place(t, "idp.events.jwks_uri"), err.Error(), ""))
					continue
				}
				r.Events.Keys = keys
			case r.Events.Issuer != idp.Issuer:
				r.Events.Keys = &oauth.Transmitter{Issuer: r.Events.Issuer, HTTP: d.door.Found(), Now: d.now, Log: d.log}
			}
		}
		if s := said.SCIM; s != nil {
			r.Directory = &signals.Directory{Token: digest(config.Place(t, "idp.scim.token"), s.Token), UserName: cmp.Or(s.UserName, "email"), Revoke: said.OnRevoke == config.EndAndRevoke}
		}
		all[t] = r
	}
	return all, problems
}

// stream is what is asked for, or looked after, at the sender.
func (d *desk) stream(cfg *config.Config, e *config.Events, issuer string) *signals.Stream {
	if e.Poll == nil && e.Stream == "" {
		return nil
	}
	s := &signals.Stream{ID: e.Stream, Token: func() (string, error) { return cfg.Secret(e.Access) }, HTTP: d.door.Found(), Turns: d.db, Owner: d.rotation.Owner,
		Facts: &oauth.Transmitter{Issuer: issuer, HTTP: d.door.Found(), Now: d.now, Log: d.log}}
	if e.Poll != nil {
		s.Poll = e.Poll.String()
	}
	return s
}
