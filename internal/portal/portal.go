// Package portal serves the pages that people see: sign in, connect, my connections, what was done in my name.
//
// It works without JavaScript. It knows the person from a sealed cookie, shows nobody anything of another, and hands
// a pasted key's body unread to the broker's flows. It holds no credential and no rule.
package portal
