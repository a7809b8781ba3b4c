package connect

import (
	"context"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// hold seals the new credential into a flow of its own, and asks.
func (d *Desk) hold(ctx context.Context, f Flow, prior, c vault.Connection, s vault.Secrets) (Result, error) {
	state, err := d.holdBack(ctx, f, FlowSwap, holding(c, s))
	if err != nil {
		return Result{}, err
	}
	return Result{Kind: FlowSwap, Connection: c, Changed: prior.Label, Swap: state, Request: f.Request, Return: f.Return}, nil
}

func (d *Desk) completeSwap(ctx context.Context, v Visitor, f Flow, useNew bool) (Result, error) {
	up := d.Catalog.Upstream(f.Tenant, f.Upstream)
	if up == nil {
		return Result{}, fault.New(fault.NotFound, "this service is not configured any more; nothing was saved", nil)
	}
	var h heldBack
	if err := d.takeBack(ctx, f, &h); err != nil {
		return Result{}, err
	}
	s := h.secrets()
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
