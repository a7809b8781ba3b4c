package config

import (
	"cmp"
	"fmt"
)

// MinToken is how long a bearer token of a sender has to be: nobody guesses it, however often he may try.
const MinToken = 20

const EndAndRevoke = "end_and_revoke"

// signals checks what the config says of hearing from the IdP.
func (k *checker) signals(at string, idp *IDP) {
	if idp == nil {
		return
	}
	if r := idp.OnRevoke; r != "" && r != "end" && r != EndAndRevoke {
		k.wrong(at+".on_revoke", "on_revoke is end or "+EndAndRevoke, "")
	}
	k.events(at+".events", idp.Events)
	if idp.SCIM != nil && idp.SCIM.UserName != "" && idp.SCIM.UserName != "email" && idp.SCIM.UserName != "subject" {
		k.wrong(at+".scim.user_name", "user_name is email or subject", "")
	}
}

// events checks how security events come.
func (k *checker) events(at string, e *Events) {
	if e == nil {
		return
	}
	switch {
	case e.Token.IsZero() && e.Poll == nil:
		k.wrong(at, "nothing says how events come", "add  token: file:events.token  where the sender pushes them, or  poll: https://login.example.com/ssf/poll  where it is asked")
	case !e.Token.IsZero() && e.Poll != nil:
		k.wrong(at+".poll", "events are pushed (token), or asked for (poll)", "a stream has one of the two")
	case e.Poll != nil && e.Poll.Scheme != "https" && !k.local():
		k.wrong(at+".poll", "events are asked for by https", "")
	}
	if needs := e.Poll != nil || e.Stream != ""; needs == e.Access.IsZero() {
		k.wrong(at+".access", "access is the token for poll and stream, and they need it", "add  access: file:ssf.token  beside them, or leave it out")
	}
}

// heard are the addresses at which the IdP says that something has ended.
func (idp *IDP) heard(at string) []string {
	var l []string
	name := cmp.Or(idp.Name, "login")
	if idp.Logout == nil || *idp.Logout {
		l = append(l, fmt.Sprintf("%s/backchannel-logout/%s  (back-channel logout URI at %s)", at, name, idp.Issuer.Host))
	}
	if idp.Events != nil && idp.Events.Poll == nil {
		l = append(l, fmt.Sprintf("%s/events/%s  (receiver of security events, RFC 8935 push)", at, name))
	}
	if idp.SCIM != nil {
		l = append(l, at+"/scim/v2  (SCIM 2.0, for the directory)")
	}
	return l
}
