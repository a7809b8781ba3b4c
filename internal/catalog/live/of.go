package live

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// OfToken reads what a consent brought: asked are the scopes that it was asked for.
func OfToken(up *catalog.Upstream, asked []string, t oauth.Token, now time.Time) []catalog.Showing {
	o := up.Provider.OAuth
	l := []catalog.Showing{{Aspect: catalog.AspectToken, Fits: true, Said: "a code was redeemed there"}, lifetime(t, now)}
	switch wanted := o.Refresh.ScopeNeeded; {
	case !t.Refresh.IsZero():
		l = append(l, catalog.Showing{Aspect: catalog.AspectRefresh, Fits: true, Said: "a refresh token came"})
	case wanted != "" && slices.Contains(asked, wanted):
		l = append(l, catalog.Showing{Aspect: catalog.AspectRefresh, Said: "no refresh token came, though the scope " + wanted + " was asked for"})
	}
	if days := o.Refresh.IdleDays; days > 0 && !t.RefreshExpires.IsZero() {
		told := t.RefreshExpires.Sub(now)
		l = append(l, catalog.Showing{Aspect: catalog.AspectIdle, Fits: told >= time.Duration(days)*24*time.Hour-time.Hour,
			Said: fmt.Sprintf("the refresh token lives %s unused; the entry says %d days", told.Round(time.Minute), days)})
	}
	return append(l, shaped(up, t.Access)...)
}

func lifetime(t oauth.Token, now time.Time) catalog.Showing {
	s := catalog.Showing{Aspect: catalog.AspectLifetime, Fits: true, Said: "the vendor does not say when its tokens end: they are used until its API refuses them"}
	if !t.Expires.IsZero() {
		s.Said = "tokens live " + t.Expires.Sub(now).Round(time.Minute).String()
	}
	return s
}

// OfKey compares a key that a person pasted with what the vendor's credentials are said to look like.
func OfKey(up *catalog.Upstream, key secret.Text) []catalog.Showing {
	if l := shaped(up, key); len(l) > 0 || len(up.Provider.TokenShapes) == 0 {
		return l
	}
	return []catalog.Showing{{Aspect: catalog.AspectShapes, Said: "a key fits none of the shapes: one that a client sends is not known as this vendor's"}}
}

// shaped says that a credential fits a shape. That one does not is told of keys alone: shapes may be those of keys.
func shaped(up *catalog.Upstream, credential secret.Text) []catalog.Showing {
	for _, shape := range up.Provider.TokenShapes {
		if ok, err := regexp.MatchString(shape, credential.Expose()); ok && err == nil {
			return []catalog.Showing{{Aspect: catalog.AspectShapes, Fits: true, Said: "a credential fits one of the shapes"}}
		}
	}
	return nil
}

// OfAccount reads the answer to the account's call, which was 200, and what was found in it.
func OfAccount(up *catalog.Upstream, header http.Header, id, label string) []catalog.Showing {
	a := up.Provider.Account
	l := []catalog.Showing{{Aspect: catalog.AspectPlace, Fits: true, Said: "the API took a credential from there"}}
	l = append(l, found(catalog.AspectAccount, a.ID, id)...)
	l = append(l, found(catalog.AspectLabel, a.Label, label)...)
	for _, q := range up.Provider.Quotas {
		if header.Get(q.Remaining) != "" {
			l = append(l, catalog.Showing{Aspect: catalog.AspectQuotas, Fits: true, Said: "an answer had the header " + q.Remaining})
		}
	}
	return l
}

// found says whether there was something at a pointer of the entry.
func found(a catalog.Aspect, pointer, value string) []catalog.Showing {
	if pointer == "" {
		return nil
	}
	s := catalog.Showing{Aspect: a, Fits: value != "", Said: "the account's call has it at " + pointer}
	if !s.Fits {
		s.Said = "the answer to the account's call has nothing at " + pointer
	}
	return []catalog.Showing{s}
}

// OfSites reads whether the sites of an account could be learned.
func OfSites(err error) []catalog.Showing {
	if err != nil {
		return []catalog.Showing{{Aspect: catalog.AspectSites, Said: "the sites of an account could not be read"}}
	}
	return []catalog.Showing{{Aspect: catalog.AspectSites, Fits: true, Said: "the sites of an account were read"}}
}

// OfRenewal compares what a renewal brought with what the entry says becomes of a used refresh token.
func OfRenewal(up *catalog.Upstream, used secret.Text, t oauth.Token, now time.Time) []catalog.Showing {
	l := []catalog.Showing{lifetime(t, now)}
	if up.Provider.OAuth == nil {
		return l
	}
	another := !t.Refresh.IsZero() && t.Refresh.Expose() != used.Expose()
	switch rotation := up.Provider.OAuth.Refresh.Rotation; {
	case rotation == catalog.RotationNone && another:
		l = append(l, catalog.Showing{Aspect: catalog.AspectRefresh, Said: "a renewal brought another refresh token; the entry says rotation: none"})
	case (rotation == catalog.RotationStrict || rotation == catalog.RotationGrace) && !another:
		l = append(l, catalog.Showing{Aspect: catalog.AspectRefresh, Said: "a renewal brought no other refresh token; the entry says rotation: " + string(rotation)})
	default:
		l = append(l, catalog.Showing{Aspect: catalog.AspectRefresh, Fits: true, Said: "a renewal did with the refresh token what the entry says"})
	}
	return l
}

// OfEnding reads how the vendor took the call that ends a credential: nothing where it was away.
func OfEnding(status int, err error) []catalog.Showing {
	switch {
	case err == nil:
		return []catalog.Showing{{Aspect: catalog.AspectRevocation, Fits: true, Said: "the vendor confirmed that a credential ended"}}
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
		return []catalog.Showing{{Aspect: catalog.AspectRevocation, Said: fmt.Sprintf("the vendor answered with %d when a credential was to end", status)}}
	}
	return nil
}

// OfRefusal reads an answer of the API by what was understood of it.
func OfRefusal(status int, means catalog.Meaning) []catalog.Showing {
	switch {
	case means == catalog.MeansDead:
		return []catalog.Showing{{Aspect: catalog.AspectDead, Fits: true, Said: "the API said that a token is good no more, as the entry has it"}}
	case means != "":
		return []catalog.Showing{{Aspect: catalog.AspectScope, Fits: true, Said: "the API said that something is not allowed, as the entry has it"}}
	case status == http.StatusUnauthorized:
		return []catalog.Showing{{Aspect: catalog.AspectDead, Said: "the API answered with 401, and nothing of the entry says what that means"}}
	}
	return nil
}
