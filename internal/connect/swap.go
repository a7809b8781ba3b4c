package connect

import (
	"context"
	"crypto/rand"
	"encoding/json"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// heldBack is a credential of another account, waiting for its user's word. It exists only inside a sealed flow.
type heldBack struct {
	Connection vault.Connection
	Access     string
	Refresh    string
}

// hold seals the new credential into a flow of its own, and asks.
func (d *Desk) hold(ctx context.Context, f Flow, prior, c vault.Connection, s vault.Secrets) (Result, error) {
	state, err := oauth.Random(rand.Reader)
	if err != nil {
		return Result{}, err
	}
	plain, err := json.Marshal(heldBack{c, s.Access.Expose(), s.Refresh.Expose()})
	if err != nil {
		return Result{}, err
	}
	f.Kind, f.State, f.Expires = FlowSwap, state, d.Now().Add(swapLife)
	if f.Verifier, err = d.Vault.SealFlow(ctx, f.Tenant, state, plain); err != nil {
		return Result{}, err
	}
	if err := d.Store.PutFlow(ctx, f); err != nil {
		return Result{}, err
	}
	return Result{Kind: FlowSwap, Connection: c, Changed: prior.Label, Swap: state, Request: f.Request, Return: f.Return}, nil
}

func (d *Desk) completeSwap(ctx context.Context, v Visitor, f Flow, useNew bool) (Result, error) {
	up := d.Catalog.Upstream(f.Tenant, f.Upstream)
	if up == nil {
		return Result{}, fault.New(fault.NotFound, "this service is not configured any more; nothing was saved", nil)
	}
	plain, err := d.Vault.OpenFlow(ctx, f.Tenant, f.State, f.Verifier)
	if err != nil {
		return Result{}, err
	}
	var h heldBack
	if err := json.Unmarshal(plain, &h); err != nil {
		return Result{}, err
	}
	s := vault.Secrets{Access: secret.New(h.Access), Refresh: secret.New(h.Refresh)}
	if useNew { // the other one stays beside it
		return d.store(ctx, v, f, up, h.Connection, s)
	}
	l, err := d.Vault.Connections(ctx, f.Tenant, f.User, f.Upstream)
	if err != nil {
		return Result{}, err
	}
	prior, err := one(l, f.Connection)
	if err != nil {
		return Result{}, err
	}
	if _, err := d.Endings.End(ctx, up, h.Connection, s); err != nil {
		return Result{}, err
	}
	if err := d.answerKept(ctx, v, f, up, prior); err != nil {
		return Result{}, err
	}
	prior.Sealed = vault.Sealed{}
	return Result{Kind: FlowConnect, Connection: prior, Request: f.Request, Return: f.Return}, nil
}

// answerKept gives the grant for the account that stays, where it has what was asked for.
func (d *Desk) answerKept(ctx context.Context, v Visitor, f Flow, up *catalog.Upstream, prior vault.Connection) error {
	if !Suits(prior, f.Scopes) {
		return nil
	}
	return d.answer(ctx, v, f.Request, up, Grant{Scopes: f.Scopes, Connection: prior.ID})
}
