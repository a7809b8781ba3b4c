// Package web is what the faces share: error-returning handlers, middleware, the faces' own keys, browser sessions and
// the plumbing of pages. It has no rule of its own and knows no room.
package web

import (
	"net/http"
	"time"
)

// Handler is an http.Handler that returns its error; one place per face answers it.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Session is a signed-in browser, sealed into a cookie. It is checked against the user's epoch at each use.
type Session struct {
	Tenant  string
	ID      string // random, new at each sign-in: what a sign-out ends
	User    string
	Name    string
	IDP     string
	SID     string // the IdP's name of the sign-in, where it has one
	ACR     string
	AMR     []string
	Started time.Time
	Ends    time.Time
	Agents  time.Time // until when agents that the person lets in may go on
	Proof   string    // of the sign-in (connect.SignedIn)
}
